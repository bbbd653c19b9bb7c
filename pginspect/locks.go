package pginspect

import (
	"context"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// A line is the queue for a key: see queries/line.sql.
type line struct {
	database string
	space    int32 // 1: the line of a key of 64 bits; 2: the server's queue for a pair
	hash     int64
}

// numbers are the bits of a ticket that are its number in the line.
const numbers = 1<<18 - 1

func lineOf(database string, space int32, key int64) line {
	if space == 1 {
		key &^= numbers
	}
	return line{database, space, key}
}

// lateRow is how long a lock that was just granted may be without its row, which
// is there for others when the grant's transaction has committed.
const lateRow = 20 * time.Millisecond

// Locks returns every advisory lock that a session of the server holds, in any
// database, sorted by database, name and grant, each with its waiters. The
// audit that is looked at is this database's alone.
func Locks(ctx context.Context, on DB) ([]Lock, error) {
	locks, _, err := Look(ctx, on)
	return locks, err
}

// Waiters returns those that wait for an advisory lock of the server, each line
// in its order. It also has those that no lock of Locks has: their lock was
// just released, or is another one whose key is alike in 46 bits.
func Waiters(ctx context.Context, on DB) ([]Waiter, error) {
	_, waiters, err := Look(ctx, on)
	return waiters, err
}

// Look returns what Locks and Waiters return, of one moment.
func Look(ctx context.Context, on DB) ([]Lock, []Waiter, error) {
	t, err := open(ctx, on)
	if err != nil {
		return nil, nil, err
	}
	for again := false; ; again = true {
		rows, err := t.q.InspectLocks(ctx)
		if err != nil {
			return nil, nil, explain("look at the locks", err)
		}
		var audit []db.InspectAuditRow
		if t.Schema != "" && t.MaySelect {
			if audit, err = t.q.InspectAudit(ctx); err != nil {
				return nil, nil, explain("look at the audit", err)
			}
		}
		p := arrange(rows, audit)
		if again || !slices.ContainsFunc(p.locks, func(l Lock) bool { return l.Kind == Named }) {
			return p.locks, p.waiters, nil
		}
		if err := pause(ctx, lateRow); err != nil {
			return nil, nil, explain("look at the locks", err)
		}
	}
}

// A holding is a session's hold of a key in this database.
type holding struct {
	pid int32
	key int64
}

// A picture is what the rows of pg_locks show together.
type picture struct {
	rows    []db.InspectLocksRow
	audit   map[holding]db.InspectAuditRow
	names   map[int64]string     // by key
	tickets map[sessionLine]bool // a session's places in a line
	lines   map[line]bool        // those that have a ticket, or a lock or waiter of their key
	queued  map[line]bool        // those that have a ticket
	locks   []Lock
	waiters []Waiter
}

type sessionLine struct {
	pid int32
	line
}

func arrange(rows []db.InspectLocksRow, audit []db.InspectAuditRow) *picture {
	p := &picture{rows: rows, audit: map[holding]db.InspectAuditRow{}, names: map[int64]string{}, tickets: map[sessionLine]bool{}, lines: map[line]bool{}, queued: map[line]bool{}}
	for _, a := range audit {
		p.audit[holding{a.Pid, a.Key}] = a
		if a.Name != "" {
			p.names[a.Key] = a.Name
		}
	}
	shares := map[sessionLine]bool{}
	for _, r := range rows {
		in := lineOf(r.Database, 1, r.Key)
		if r.Space == 1 {
			p.lines[in] = true
		} else if r.Granted && r.Shared && r.Key&numbers == 0 {
			shares[sessionLine{r.Pid, in}] = true
		}
	}
	for _, r := range rows {
		if in := lineOf(r.Database, 1, r.Key); isTicket(r) && shares[sessionLine{r.Pid, in}] {
			p.tickets[sessionLine{r.Pid, in}], p.lines[in], p.queued[in] = true, true, true
		}
	}
	for _, r := range rows {
		p.place(r)
	}
	p.order()
	return p
}

// place makes a lock or a waiter of a row, or passes over it, if it is a part of
// the line itself: the share of the number 0, or a look at another's ticket.
func (p *picture) place(r db.InspectLocksRow) {
	in := lineOf(r.Database, 1, r.Key)
	ofLine := p.tickets[sessionLine{r.Pid, in}]
	switch {
	case r.Space == 1 && r.Granted:
		p.locks = append(p.locks, p.lock(r))
	case r.Space == 1:
		// A Pool waits on a session of its own for the ticket of another. Where that
		// statement is not shown to this role, it is taken for one.
		forTicket := p.queued[in] && (r.Turn || r.Started == 0)
		if !ofLine && !forTicket {
			w := p.waiter(r, in)
			w.Key, w.Kind = r.Key, Keyed
			p.waiters = append(p.waiters, w)
		}
	case ofLine && isTicket(r):
		w := p.waiter(r, in)
		w.InLine, w.number = true, r.Key&numbers
		p.waiters = append(p.waiters, w)
	case ofLine, p.lines[in] && (r.Shared || r.Key&numbers == 0):
	case r.Granted:
		p.locks = append(p.locks, p.lock(r))
	default:
		w := p.waiter(r, lineOf(r.Database, 2, r.Key))
		w.Key, w.Kind = r.Key, Foreign
		p.waiters = append(p.waiters, w)
	}
}

func isTicket(r db.InspectLocksRow) bool {
	return r.Space == 2 && r.Granted && !r.Shared && r.Key&numbers != 0
}
