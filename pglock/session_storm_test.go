package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/rawconn"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// TestStorm lets sessions contend while contexts end at random, backends are
// killed at random, and some have a statement_timeout of a millisecond. What
// each acquire said is compared with what another session sees: after a failure
// nothing is held, after a success the lock is, and never are there two holders.
// Facts 1, 2, 3, 21, 22 and 24.
func TestStorm(t *testing.T) {
	tries := 10_000
	if testing.Short() {
		tries = 600
	}
	const workers, targets = 8, 3
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		s := &storm{T: t, o: o, holding: make(map[string]map[int]bool), killed: make(map[int]bool)}
		for range targets {
			s.targets = append(s.targets, newTarget(t))
		}
		run(t, s.o.db, slowAudit)
		db := openDB(t, driver, dbname)
		db.SetMaxIdleConns(0) // a connection that was given back must not be seen again
		s.o.db.SetMaxIdleConns(workers + 1)

		var group sync.WaitGroup
		for range workers {
			group.Go(func() {
				w := &stormWorker{storm: s, db: db}
				defer w.hangUp()
				for range tries / workers {
					if rand.IntN(4) == 0 { // by the tries, so that a slow machine is not hit more
						group.Go(func() { s.kill(rand.N(10 * time.Millisecond)) })
					}
					if t.Failed() || !w.try() {
						return
					}
				}
			})
		}
		group.Wait()
		t.Logf("%d tries: %d granted, %d refused, %d cut short, %d failed, %d kills, %d sessions destroyed",
			tries, s.granted.Load(), s.refused.Load(), s.cut.Load(), s.failed.Load(), s.kills.Load(), s.destroyed.Load())
		for what, n := range map[string]*atomic.Int64{"granted": &s.granted, "refused": &s.refused, "cut short": &s.cut, "destroyed": &s.destroyed} {
			if n.Load() == 0 {
				t.Errorf("no try was %s: the storm was a breeze", what)
			}
		}
	})
}

// slowAudit makes the row of a hasty worker's lock take its time. It is written
// after the grant.
const slowAudit = `
	CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(random() * 0.002); RETURN new; END';
	CREATE TRIGGER slow BEFORE INSERT ON lock_audit FOR EACH ROW WHEN (new.owner = 'hasty') EXECUTE FUNCTION slow()`

type storm struct {
	*testing.T
	o       observer
	targets []string

	granted, refused, cut, failed, kills, destroyed atomic.Int64

	mu      sync.Mutex
	alive   []int                   // the workers' backends
	killed  map[int]bool            // noted before the signal is sent
	holding map[string]map[int]bool // by target, the workers that believe to hold it; true: shared
}

// kill ends one of the workers' backends after a while.
func (s *storm) kill(after time.Duration) {
	time.Sleep(after)
	s.mu.Lock()
	if len(s.alive) == 0 {
		s.mu.Unlock()
		return
	}
	pid := s.alive[rand.IntN(len(s.alive))]
	s.killed[pid] = true
	s.mu.Unlock()
	if _, err := s.o.db.ExecContext(bg, "SELECT pg_terminate_backend($1::int)", pid); err != nil {
		s.Error(err)
		return
	}
	s.kills.Add(1)
}

func (s *storm) wasKilled(pid int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.killed[pid]
}

// enter notes a holder. Two at once are wrong, unless one of their backends has
// been killed.
func (s *storm) enter(target string, pid int, shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.holding[target] == nil {
		s.holding[target] = make(map[int]bool)
	}
	for other, otherShared := range s.holding[target] {
		if !(shared && otherShared) && !s.killed[other] && !s.killed[pid] {
			s.Errorf("two holders of %s: backend %d (shared %t) and %d (shared %t)", target, other, otherShared, pid, shared)
		}
	}
	s.holding[target][pid] = shared
}

func (s *storm) leave(target string, pid int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.holding[target], pid)
}

// A stormWorker has one session at a time.
type stormWorker struct {
	*storm
	db   *sql.DB
	conn *sql.Conn
	pid  int
	*pglock.Session
	hasty bool // its statements are cut short by the server
}

// mayFail reports whether the session has a reason to fail.
func (w *stormWorker) mayFail() bool { return w.hasty || w.wasKilled(w.pid) }

// dial makes a new session. It fails when its backend is killed too soon.
func (w *stormWorker) dial() error {
	conn, err := w.db.Conn(bg)
	if err != nil {
		return err
	}
	if err := conn.QueryRowContext(bg, "SELECT pg_backend_pid()").Scan(&w.pid); err != nil {
		conn.Close()
		return err
	}
	w.conn, w.hasty = conn, rand.IntN(8) == 0
	if w.hasty {
		conn.ExecContext(bg, "SET statement_timeout = '1ms'") // which itself may be killed
	}
	var opts []pglock.SessionOption
	if w.hasty || rand.IntN(4) == 0 {
		opts = append(opts, pglock.WithAudit())
	}
	w.Session = pglock.NewSession(conn, opts...)
	w.mu.Lock()
	w.alive = append(w.alive, w.pid)
	delete(w.killed, w.pid) // the number may be used again
	w.mu.Unlock()
	return nil
}

// hangUp ends the session, whose backend is none of the living then.
func (w *stormWorker) hangUp() {
	if w.conn == nil {
		return
	}
	w.conn.Close()
	w.conn = nil
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, pid := range w.alive {
		if pid == w.pid {
			w.alive[i] = w.alive[len(w.alive)-1]
			w.alive = w.alive[:len(w.alive)-1]
			return
		}
	}
}

// try acquires once, and checks. It returns false when the test has failed.
func (w *stormWorker) try() bool {
	if w.conn == nil {
		if err := w.dial(); err != nil {
			w.Error(err)
			return false
		}
	}
	target := w.targets[rand.IntN(len(w.targets))]
	shared := rand.IntN(8) == 0
	var opts []swanlock.Option
	if w.hasty {
		opts = append(opts, swanlock.WithOwner("hasty"))
	}
	if shared {
		opts = append(opts, swanlock.WithShared())
	} else if rand.IntN(4) == 0 {
		opts = append(opts, swanlock.WithFence())
	}
	if rand.IntN(3) == 0 {
		opts = append(opts, swanlock.WithTTL(time.Minute))
	}
	how := w.TryAcquire
	if rand.IntN(2) == 0 {
		how = w.Acquire
	}
	ctx, cancel := badContext()
	held, err := how(ctx, target, opts...)
	cancel()
	if err != nil {
		return w.afterFailure(target, err)
	}
	w.granted.Add(1)
	w.enter(target, w.pid, shared)
	sees := w.sees(target)
	if !sees && !w.wasKilled(w.pid) {
		w.Errorf("granted %s, but another session does not see backend %d hold it", target, w.pid)
	}
	if rand.IntN(8) == 0 && held.Refresh(bg) != nil && !w.mayFail() {
		w.Errorf("Refresh: %v", held.Err())
	}
	w.leave(target, w.pid)

	ctx, cancel = badContext()
	err = held.Release(ctx)
	cancel()
	if err != nil && !w.mayFail() {
		w.Errorf("release of %s by backend %d, which nobody killed: %v", target, w.pid, err)
	}
	return w.holdsNothing(fmt.Errorf("Release (%w)", err))
}

func (w *stormWorker) afterFailure(target string, err error) bool {
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		w.cut.Add(1)
	case errors.Is(err, swanlock.ErrNotAcquired):
		w.refused.Add(1)
	default:
		w.failed.Add(1)
		if !w.mayFail() {
			w.Errorf("acquire of %s by backend %d, which nobody killed: %v", target, w.pid, err)
		}
	}
	if errors.Is(err, swanlock.ErrAlreadyHeld) {
		w.Errorf("the session holds what it had released: %v", err)
	}
	return w.holdsNothing(err)
}

// sees asks another session whether this worker's backend holds target.
func (w *stormWorker) sees(target string) bool {
	var seen bool
	if err := w.o.db.QueryRowContext(bg, "SELECT EXISTS ("+pgtest.OfKey+" AND pid = $2::int)", int64(pglock.KeyOf(target)), w.pid).Scan(&seen); err != nil {
		w.Error(err)
	}
	return seen
}

// holdsNothing checks from another session that this worker's holds nothing,
// at once if it lives, and soon if it was destroyed or killed, or if the caller's
// context ended first: then the call is undone in the background.
func (w *stormWorker) holdsNothing(after error) bool {
	left := errors.Is(after, context.Canceled) || errors.Is(after, context.DeadlineExceeded)
	var n int
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		// What the client says now, the server must have known before it is asked.
		destroyed := errors.Is(rawconn.Raw(w.conn, func(any) error { return nil }), sql.ErrConnDone)
		if err := w.o.db.QueryRowContext(bg, "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = $1::int", w.pid).Scan(&n); err != nil {
			w.Error(err)
			return false
		}
		switch {
		case n > 0 && (destroyed || left || w.wasKilled(w.pid)) && time.Since(start) < soon:
			continue
		case n > 0:
			w.Errorf("backend %d holds %d locks after %v (session destroyed: %t, killed: %t)", w.pid, n, after, destroyed, w.wasKilled(w.pid))
			return false
		}
		if destroyed {
			w.destroyed.Add(1)
			w.hangUp()
		}
		return true
	}
}

// badContext returns a context that ends at a random time, or not at all.
func badContext() (context.Context, context.CancelFunc) {
	switch rand.IntN(5) {
	case 0:
		ctx, cancel := context.WithCancel(bg)
		cancel()
		return ctx, cancel
	case 1:
		return context.WithTimeout(bg, time.Millisecond)
	case 2:
		ctx, cancel := context.WithCancel(bg)
		time.AfterFunc(rand.N(2*time.Millisecond), cancel)
		return ctx, cancel
	case 3:
		return context.WithTimeout(bg, rand.N(20*time.Millisecond))
	}
	return context.WithTimeout(bg, 250*time.Millisecond)
}
