package pginspect

import (
	"cmp"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// sameStart is by how much two notes of one session's start may differ.
const sameStart = time.Millisecond

// sameSession reports whether two notes of when a process began may be of one
// session. What the server has said is zero if this role may not see it.
func sameSession(said, noted time.Time) bool {
	return said.IsZero() || said.Sub(noted).Abs() <= sameStart
}

func sessionOf(r db.InspectLocksRow) Session {
	return Session{PID: int(r.Pid), Started: at(r.Started), Role: r.Role, Application: r.Application, Client: r.Client, State: r.State}
}

func (p *picture) lock(r db.InspectLocksRow) Lock {
	l := Lock{Kind: Foreign, Key: r.Key, Database: r.Database, Here: r.Here, Shared: r.Shared, Session: sessionOf(r), SeenAt: at(r.At)}
	if r.Space != 1 {
		return l
	}
	l.Kind = Keyed
	if !r.Here {
		return l
	}
	if name := p.names[r.Key]; name != "" {
		l.Kind, l.Target = Named, name
	}
	a := p.audit[holding{r.Pid, r.Key}]
	if a.ID == 0 || !sameSession(at(r.Started), at(a.Started)) {
		return l // the row is of an earlier session with that process id
	}
	l.Kind, l.Target, l.Owner, l.AuditID, l.Fence = Audited, a.Target, a.Owner, a.ID, uint64(a.Fence)
	l.TTL = time.Duration(a.TtlMs) * time.Millisecond
	l.AcquiredAt, l.RefreshedAt, l.HeldSince = at(a.Acquired), at(a.Refreshed), at(a.Acquired)
	return l
}

func (p *picture) waiter(r db.InspectLocksRow, in line) Waiter {
	w := Waiter{Database: r.Database, Here: r.Here, Session: sessionOf(r), SeenAt: at(r.At), line: in, WaitingSince: at(r.WaitingSince)}
	if r.Here && r.Space == 1 {
		w.Target = p.names[r.Key]
	}
	return w
}

// order sorts the locks and the waiters, and gives each lock its waiters.
func (p *picture) order() {
	slices.SortStableFunc(p.locks, func(a, b Lock) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(unnamed(a), unnamed(b)), cmp.Compare(a.Target, b.Target),
			cmp.Compare(a.Key, b.Key), a.AcquiredAt.Compare(b.AcquiredAt), cmp.Compare(a.PID, b.PID))
	})
	p.since()
	slices.SortStableFunc(p.waiters, func(a, b Waiter) int {
		return cmp.Or(cmp.Compare(a.Database, b.Database), cmp.Compare(a.line.space, b.line.space), cmp.Compare(a.line.hash, b.line.hash),
			-compareBool(a.InLine, b.InLine), cmp.Compare(a.number, b.number), a.WaitingSince.Compare(b.WaitingSince), cmp.Compare(a.PID, b.PID))
	})
	byLine := map[line][]*Lock{}
	for i, l := range p.locks {
		space := int32(1)
		if l.Kind == Foreign {
			space = 2
		}
		in := lineOf(l.Database, space, l.Key)
		byLine[in] = append(byLine[in], &p.locks[i])
	}
	for from := 0; from < len(p.waiters); {
		to := from + 1
		for to < len(p.waiters) && p.waiters[to].line == p.waiters[from].line {
			to++
		}
		queue := p.waiters[from:to]
		p.number(queue, byLine[queue[0].line])
		from = to
	}
}

// number gives the waiters of a line their places, and the holders of its key
// their waiters. A ticket has 46 bits of a key, so the key is the holder's.
func (p *picture) number(queue []Waiter, holders []*Lock) {
	for i := range queue {
		w := &queue[i]
		w.Place = i + 1
		if w.Kind == "" && len(holders) > 0 {
			w.Key, w.Kind = holders[0].Key, Keyed
		}
		for _, l := range holders {
			if l.Key == w.Key && w.Target == "" {
				w.Target = l.Target
			}
		}
	}
	// Those behind came later, so each has waited for as long as those at least.
	for i := len(queue) - 2; i >= 0; i-- {
		w, behind := &queue[i], queue[i+1]
		if w.InLine && behind.InLine && !behind.WaitingSince.IsZero() && (w.WaitingSince.IsZero() || behind.WaitingSince.Before(w.WaitingSince)) {
			w.WaitingSince = behind.WaitingSince
		}
	}
	for _, l := range holders {
		for _, w := range queue {
			if w.Key == l.Key {
				l.Waiters = append(l.Waiters, w)
			}
		}
	}
}

// since finds for the waiters in line when they are known to have waited: a
// session waits in the server for a part of that only, or is between two looks.
func (p *picture) since() {
	waits, keys, shown := map[sessionLine]int64{}, map[sessionLine]int64{}, map[int32]int64{}
	for _, r := range p.rows {
		if in := (sessionLine{r.Pid, lineOf(r.Database, 1, r.Key)}); !r.Granted && p.tickets[in] {
			waits[in] = r.WaitingSince
			if r.Space == 1 {
				keys[in] = r.Key
			}
		}
		shown[r.Pid] = r.Changed
		if r.State == "active" {
			shown[r.Pid] = r.Asked
		}
	}
	for i := range p.waiters {
		w := &p.waiters[i]
		if !w.InLine {
			continue
		}
		in := sessionLine{int32(w.PID), w.line}
		if key, ok := keys[in]; ok {
			w.Key, w.Kind = key, Keyed
			if w.Here {
				w.Target = p.names[key]
			}
		}
		for _, t := range []int64{waits[in], shown[int32(w.PID)]} {
			if t != 0 && (w.WaitingSince.IsZero() || at(t).Before(w.WaitingSince)) {
				w.WaitingSince = at(t)
			}
		}
	}
}

func unnamed(l Lock) int {
	switch {
	case l.Kind == Foreign:
		return 2
	case l.Target == "":
		return 1
	}
	return 0
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}
