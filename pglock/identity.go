package pglock

import (
	"context"
	"crypto/rand"
	"database/sql"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// This file finds the ledger of a session. The driver's connection is only a
// cache for that: on a pgxpool each checkout makes a new one for the same
// session, and some drivers' connections have no identity. The server decides:
// a session is marked with the token of its ledger, and the process id and
// start of its backend say that it is still the same session.

// process is the prefix of all tokens of this process.
var process = rand.Text() + "/"

var tokens atomic.Int64

func newToken() string { return process + strconv.FormatInt(tokens.Add(1), 36) }

// byToken has a weak.Pointer[ledger] for each token. byBackend has one for each
// backend that was marked, because a rollback may take the mark away and leave
// the locks.
var byToken, byBackend sync.Map

// A backend is a server process: its process id, and when it was started.
type backend struct {
	pid     int32
	started int64
}

// orphans are the ledgers that have no driver's connection any more, but locks,
// tickets or a lease to be settled when the session is found again. The map
// keeps them from being collected until then.
var orphans sync.Map

func (led *ledger) register() {
	byToken.Store(led.token, weak.Make(led))
	runtime.AddCleanup(led, func(token string) { byToken.Delete(token) }, led.token)
}

// ledgerIn returns the ledger that m, which is byToken or byBackend, has for
// key, or nil.
func ledgerIn(m *sync.Map, key any) *ledger {
	if found, ok := m.Load(key); ok {
		return found.(weak.Pointer[ledger]).Value()
	}
	return nil
}

// orphaned keeps a ledger whose driver's connection was collected, if there is
// something to settle.
func orphaned(led *ledger) {
	led = led.current()
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.hasStateLocked() && led.dead == nil {
		led.kept = true
		orphans.Store(led, nil)
	}
}

// letGoLocked removes the ledger from orphans if there is nothing to settle any
// more.
func (led *ledger) letGoLocked() {
	if led.kept && !led.hasStateLocked() {
		led.kept = false
		orphans.Delete(led)
	}
}

// hasStateLocked reports whether the session may have locks, tickets or a
// lease.
func (led *ledger) hasStateLocked() bool {
	return len(led.locks)+len(led.tickets) > 0 || led.lease.ttl > 0
}

// current returns the ledger of the session. That is led, unless led was made
// for a connection whose session turned out to have another ledger already: see
// adopt.
func (led *ledger) current() *ledger {
	if next := led.next.Load(); next != nil {
		return next
	}
	return led
}

// isKnown reports whether the session was marked, and has no other ledger.
func (tn turn) isKnown() bool { return tn.led.backend != 0 && tn.led.next.Load() == nil }

// cameThrough notes that conn has the session now.
func (led *ledger) cameThrough(conn *sql.Conn) {
	led.mu.Lock()
	led.last = weak.Make(conn)
	led.mu.Unlock()
}

// marks notes which backend was marked, or is to be ended in place of being
// marked.
func (led *ledger) marks(row db.MarkRow) {
	at := backend{row.Pid, row.Started}
	led.mu.Lock()
	defer led.mu.Unlock()
	if at == (backend{led.backend, led.started}) {
		return
	}
	led.backend, led.started = at.pid, at.started
	if at.started == 0 { // The server did not say.
		return
	}
	me := weak.Make(led)
	byBackend.Store(at, me)
	runtime.AddCleanup(led, func(at backend) { byBackend.CompareAndDelete(at, me) }, at)
}

// A former says what this process knows of the session that Mark has found.
type former int

const (
	foreignSession   former = iota // another program's, or one that is in use
	emptySession                   // ours, not in use, and without locks, tickets or a lease
	abandonedSession               // ours; its connection was closed with some of these on it
	endedSession                   // ours; it was to be destroyed, but is alive
)

// formerOf returns what is known of the session that had the mark of row, and
// its ledger, if there is one.
func formerOf(led *ledger, row db.MarkRow, instead string) (former, *ledger) {
	at := backend{row.Pid, row.Started}
	ours := strings.HasPrefix(row.Before, process)
	if at == (backend{led.backend, led.started}) && row.Started != 0 && ours && row.Before != led.token {
		// Perhaps a rollback has brought back the mark that was before ours.
		if before := ledgerIn(&byToken, row.Before); before == nil || before.isLeft() {
			return emptySession, nil
		}
	}
	if led.backend != 0 || row.Before == led.token || row.Before == instead && instead != "" {
		return foreignSession, nil
	}
	// A rollback may have brought back an older mark than that of the backend's
	// ledger, or none.
	var other *ledger
	if row.Started != 0 && (row.Before == "" || ours) {
		other = ledgerIn(&byBackend, at)
	}
	switch {
	case other != nil:
	case row.Before == "":
		return foreignSession, nil
	case ours:
		if other = ledgerIn(&byToken, row.Before); other == nil {
			return emptySession, nil
		}
	default:
		return foreignSession, nil
	}
	other.mu.Lock()
	same := other.backend == row.Pid && other.started == row.Started
	dead, hasState, owned, last := other.dead != nil, other.hasStateLocked(), other.owner != nil, other.last.Value()
	other.mu.Unlock()
	switch {
	case !same:
		return foreignSession, other
	case dead:
		return endedSession, other
	case owned, last != nil && !oneconn.Closed(last):
		return foreignSession, other // A pooler gave the same backend to both.
	case hasState:
		return abandonedSession, other
	}
	return emptySession, other
}

// isLeft reports whether nobody uses the ledger, and nothing is to be settled.
func (led *ledger) isLeft() bool {
	led.mu.Lock()
	has, owned, last := led.hasStateLocked(), led.owner != nil, led.last.Value()
	led.mu.Unlock()
	return !has && !owned && (last == nil || oneconn.Closed(last))
}

// adopt makes other, the session's ledger, the ledger of this connection too.
// From then on only other is used. The caller must still take the turn of
// other; before that nothing was locked.
func (tn turn) adopt(ctx context.Context, other *ledger, row db.MarkRow) error {
	if row.Answer != notOurs { // Mark has replaced the mark of other, since that had no locks.
		_, err := ask(ctx, tn, (*db.Queries).Mark, db.MarkParams{Session: other.token, Instead: tn.led.token})
		if err != nil { // Both ledgers may be the session's, so both end with it.
			tn.led.marks(row)
			other.lose(err)
			tn.destroy(err)
			return explain(err, false)
		}
	}
	other.cameThrough(tn.sql())
	tn.led.next.Store(other)
	return nil
}

// endsItself asks a session to end, and reports whether the server has
// confirmed it. A session whose transaction has failed cannot be asked.
func endsItself(ctx context.Context, c *oneconn.Conn, session db.EndBackendParams) bool {
	_, err := db.New(c).EndBackend(ctx, session)
	if state := sqlState(err); state != "" && state != adminShutdown {
		_, err = db.New(c).EndWhenIdle(ctx)
	}
	return err == nil || sqlState(err) == adminShutdown
}
