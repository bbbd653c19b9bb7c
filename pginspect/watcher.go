package pginspect

import (
	"context"
	"sync"
	"time"
)

// A Watcher looks at the locks again and again, and remembers since when it has
// seen each lock and waiter: what the server does not say of a lock without an
// audit, and of no place in line. Its zero value is ready for use.
type Watcher struct {
	mu      sync.Mutex
	looks   int // how many are remembered
	locks   map[seenLock]time.Time
	waiters map[seenWaiter]time.Time
}

type seenLock struct {
	database string
	key      int64
	foreign  bool
	pid      int
	started  time.Time
}

type seenWaiter struct {
	line
	number  int64
	key     int64
	pid     int
	started time.Time
}

// Look is the function Look, with HeldSince and WaitingSince
// from the first look that had them. Of looks that are made at the same time, the
// one that ends first is remembered.
func (w *Watcher) Look(ctx context.Context, on DB) ([]Lock, []Waiter, error) {
	w.mu.Lock()
	looks := w.looks
	w.mu.Unlock()
	locks, waiters, err := Look(ctx, on)
	if err != nil {
		return nil, nil, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	heldSince, waitingSince := w.since(locks, waiters)
	// What was seen before a look that is remembered may be over since.
	if looks == w.looks {
		w.looks, w.locks, w.waiters = looks+1, heldSince, waitingSince
	}
	return locks, waiters, nil
}

// since adds to locks and waiters what is remembered of them, and returns what is
// to be remembered.
func (w *Watcher) since(locks []Lock, waiters []Waiter) (map[seenLock]time.Time, map[seenWaiter]time.Time) {
	heldSince, waitingSince := map[seenLock]time.Time{}, map[seenWaiter]time.Time{}
	queued := func(q *Waiter) {
		id := seenWaiter{q.line, q.number, q.Key, q.PID, q.Started}
		if q.InLine {
			id.key = 0 // it is not always known
		}
		first := earliest(waitingSince[id], w.waiters[id], q.WaitingSince, q.SeenAt)
		waitingSince[id], q.WaitingSince = first, first
	}
	for i := range waiters {
		queued(&waiters[i])
	}
	for i := range locks {
		l := &locks[i]
		id := seenLock{l.Database, l.Key, l.Kind == Foreign, l.PID, l.Started}
		if l.HeldSince.IsZero() {
			l.HeldSince = earliest(w.locks[id], l.SeenAt)
			heldSince[id] = l.HeldSince
		}
		for j := range l.Waiters {
			queued(&l.Waiters[j])
		}
	}
	return heldSince, waitingSince
}

// earliest returns the earliest of those that are not zero.
func earliest(times ...time.Time) (first time.Time) {
	for _, t := range times {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	return first
}
