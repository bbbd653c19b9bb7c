package pglock_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// ends is an observer that counts how locks ended.
type ends struct {
	mu               sync.Mutex
	grants, releases int
	losses           []error
	twice            int // locks whose end was told again
}

func (e *ends) Begin(ctx context.Context, _ swanlock.Op, _ string) context.Context { return ctx }

func (e *ends) End(_ context.Context, event swanlock.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case event.Outcome == swanlock.OutcomeAcquired:
		e.grants++
	case event.Op == swanlock.OpLoss:
		e.losses = append(e.losses, event.Err)
	case event.Ended:
		e.releases++
	}
	if event.Op == swanlock.OpLoss && !event.Ended {
		e.twice++
	}
}

// balanced waits until each grant's end was told.
func (e *ends) balanced(t *testing.T) {
	t.Helper()
	eventually(t, "the end of each lock is told", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return e.grants == e.releases+len(e.losses)
	})
	if e.grants == 0 || e.twice > 0 {
		t.Errorf("got %d grants, and the end of %d locks twice", e.grants, e.twice)
	}
}

// TestObservedConformance: the locks of pglock pass the suite while they are
// observed, and the end of each is told once.
func TestObservedConformance(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		lose := locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			l, ok := swanlock.As[*pglock.PostgresLock](held)
			if !ok {
				t.Fatalf("As finds no PostgresLock in a %T", held)
			}
			o.in(t).kill(l.BackendPID())
		})
		for name, c := range map[string]struct {
			with func(t *testing.T) swanlock.Locker
			opts []locktest.Option
		}{
			"Session": {func(t *testing.T) swanlock.Locker { return pglock.NewSession(connOf(t, pgtest.UsedDB(t, driver))) }, nil},
			"Pool": {func(t *testing.T) swanlock.Locker {
				p := newPool(t, pgtest.UsedDB(t, driver), pglock.WithHeartbeat(time.Second))
				must(t, acquired(t, p, newTarget(t)).Release(bg))
				return p
			}, []locktest.Option{locktest.Pooled("its locks share sessions")}},
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				told := &ends{}
				t.Cleanup(func() { told.balanced(t) })
				locktest.Run(t, func(t *testing.T) swanlock.Locker { return swanlock.Observe(c.with(t), told) },
					append(c.opts, locktest.Fair(), locktest.ShortTTL(600*time.Millisecond), lose)...)
			})
		}
	})
}

// TestAfterDone: f is called once, after the end, with the reason, and not after stop.
func TestAfterDone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for name, c := range map[string]struct {
			end  func(p *pglock.Pool, l *pglock.PostgresLock)
			want error
		}{
			"released": {func(_ *pglock.Pool, l *pglock.PostgresLock) { must(t, l.Release(bg)) }, swanlock.ErrReleased},
			"expired":  {func(*pglock.Pool, *pglock.PostgresLock) {}, swanlock.ErrExpired},
			"killed":   {func(_ *pglock.Pool, l *pglock.PostgresLock) { o.kill(l.BackendPID()) }, swanlock.ErrLost},
			"closed": {func(p *pglock.Pool, _ *pglock.PostgresLock) {
				ended, cancel := context.WithCancel(bg)
				cancel()
				p.Close(ended)
			}, swanlock.ErrReleased},
		} {
			p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(50*time.Millisecond))
			var opts []swanlock.Option
			if name == "expired" {
				opts = append(opts, swanlock.WithTTL(300*time.Millisecond))
			}
			l := acquired(t, p, newTarget(t), opts...)
			called := make(chan error, 3)
			f := func(err error) {
				select {
				case <-l.Done():
				default:
					t.Errorf("%s: called before Done was closed", name)
				}
				called <- err
			}
			never := l.AfterDone(func(error) { t.Errorf("%s: called after stop", name) })
			l.AfterDone(f)
			if !never() || never() {
				t.Errorf("%s: stop: want true, and then false", name)
			}
			stop := l.AfterDone(f)
			c.end(p, l)
			wantIs(t, <-called, c.want)
			wantIs(t, <-called, c.want)
			l.AfterDone(f)
			wantIs(t, <-called, c.want)
			if stop() {
				t.Errorf("%s: stop after the call: got true", name)
			}
			l.Release(bg)
		}
	})
}

// TestObservedDropped: a lock that is dropped without Release is found although it
// is observed, and told as lost.
func TestObservedDropped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target, told := observe(t), newTarget(t), &ends{}
		p := newPool(t, openDB(t, driver), pglock.WithLogger(nil))
		_, err := swanlock.Observe(p, told, swanlock.LogTo(nil)).TryAcquire(bg, target)
		must(t, err)
		eventually(t, "the lock is free", func() bool {
			runtime.GC()
			return len(o.holders(target)) == 0
		})
		told.balanced(t)
		if len(told.losses) != 1 || !errors.Is(told.losses[0], swanlock.ErrLost) {
			t.Errorf("got the losses %v, want one", told.losses)
		}
	})
}
