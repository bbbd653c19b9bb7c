package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestSessionGrantWithoutAnswer: the server grants the lock, but its answer never comes. The
// acquire fails in time, and holds nothing: the session is destroyed, since it
// cannot be asked. Facts 1, 21 and 22.
func TestSessionGrantWithoutAnswer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				t.Parallel()
				o, p, late := observe(t), newProxy(t), watchScheduler(t)
				url := p.url
				if isPQ(driver) {
					url += "&binary_parameters=yes" // or the function would first send the text alone
				}
				conn := connOf(t, openURL(t, driver, url))
				l := by.with(conn)
				must(t, acquired(t, l, newTarget(t)).Release(bg)) // warm
				pid := pidOf(t, conn)
				p.muted.Store(true)
				target := newTarget(t)
				start := time.Now()
				ctx, cancel := context.WithTimeout(bg, 100*time.Millisecond)
				defer cancel()
				granted := make(chan bool)
				go func() {
					seen := false
					for !seen && time.Since(start) < soon {
						seen = len(o.holders(target)) > 0
					}
					granted <- seen
				}()
				_, err := l.TryAcquire(ctx, target)
				if took := time.Since(start); took > 2*time.Second+late() {
					t.Errorf("the try took %v, with a context of 100 ms", took)
				}
				if !<-granted {
					t.Fatal("the server did not grant the lock")
				}
				if err == nil {
					t.Fatal("the try succeeded without an answer")
				}
				o.wantSoonFree(target)
				eventually(t, "the backend has ended", func() bool { return !o.alive(pid) })
				if err := conn.PingContext(bg); !errors.Is(err, sql.ErrConnDone) {
					t.Errorf("got %v from the caller's connection, want one that was destroyed", err)
				}
			})
		}
	})
}

// TestSessionOnASilentServer: a caller whose context ends does not wait for another's
// statement that the server does not answer. Fact 40.
func TestSessionOnASilentServer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, late := newProxy(t), watchScheduler(t)
		s := pglock.NewSession(connOf(t, openURL(t, driver, p.url)))
		held := acquired(t, s, newTarget(t))
		p.muted.Store(true)
		refreshed := make(chan error)
		go func() {
			ctx, cancel := context.WithTimeout(bg, 1500*time.Millisecond)
			defer cancel()
			refreshed <- held.Refresh(ctx)
		}()
		time.Sleep(100 * time.Millisecond) // it is under way
		for name, call := range map[string]func(*testing.T) error{
			"TryAcquire": func(t *testing.T) error {
				ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
				defer cancel()
				_, err := s.TryAcquire(ctx, newTarget(t))
				return err
			},
			"Acquire": func(t *testing.T) error {
				ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
				defer cancel()
				_, err := s.Acquire(ctx, newTarget(t))
				return err
			},
			"Refresh": func(t *testing.T) error {
				ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
				defer cancel()
				return held.Refresh(ctx)
			},
		} {
			start := time.Now()
			wantIs(t, call(t), context.DeadlineExceeded)
			if took := time.Since(start); took > 2*time.Second+late() {
				t.Errorf("%s took %v, with a context of 50 ms", name, took)
			}
		}
		// A refresh that is not answered says nothing of the lock, which is lost when it
		// can wait no longer.
		wantIs(t, <-refreshed, context.DeadlineExceeded)
		wantIs(t, ended(t, held), swanlock.ErrLost)
	})
}

// slow gives a connection whose answers take their time from when it is warm.
func slow(t *testing.T, driver string, by acquirer, delay time.Duration) (swanlock.Locker, *sql.Conn) {
	t.Helper()
	p := newProxy(t)
	url := p.url
	if isPQ(driver) {
		url += "&binary_parameters=yes"
	}
	conn := connOf(t, openURL(t, driver, url))
	l := by.with(conn)
	held := acquired(t, l, newTarget(t), swanlock.WithTTL(time.Hour))
	must(t, held.Refresh(bg))
	must(t, held.Release(bg))
	p.delay.Store(int64(delay))
	return l, conn
}

// TestSessionGrantAfterContextEnds: a grant whose answer comes when the caller has gone is given
// back, and costs the session nothing. Fact 21.
func TestSessionGrantAfterContextEnds(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				t.Parallel()
				o := observe(t)
				l, conn := slow(t, driver, by, 150*time.Millisecond)
				pid := pidOf(t, conn)
				for name, acquire := range map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
					"TryAcquire": l.TryAcquire, "Acquire": l.Acquire,
				} {
					target := newTarget(t)
					ctx, cancel := context.WithTimeout(bg, 30*time.Millisecond)
					held, err := acquire(ctx, target)
					cancel()
					if held != nil {
						t.Errorf("%s returned a lock after its context had ended", name)
					}
					wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
					o.wantSoonFree(target) // on a slow server it is given back in the background
				}
				if got := pidOf(t, conn); got != pid {
					t.Errorf("backend %d became %d", pid, got)
				}
			})
		}
	})
}

// TestLeaseStartsBeforeTheStatement: the holder counts from before it asked, so
// that it has given up when the server does, however long the answer took. It is
// the real twin of TestScriptedLeaseStartsWithTheStatement, on the drivers in turn.
func TestLeaseStartsBeforeTheStatement(t *testing.T) {
	t.Parallel()
	const ttl, delay = 1500 * time.Millisecond, 400 * time.Millisecond
	calls := map[string]func(*pglock.PostgresLock) error{
		"TryAcquire": func(*pglock.PostgresLock) error { return nil },
		"Refresh":    func(held *pglock.PostgresLock) error { return held.Refresh(bg) },
	}
	for i, by := range acquirers {
		for j, name := range []string{"TryAcquire", "Refresh"} {
			driver := drivers[(i+j)%len(drivers)]
			t.Run(driver+" "+by.name+" "+name, func(t *testing.T) {
				t.Parallel()
				target := newTarget(t)
				l, _ := slow(t, driver, by, delay)
				held := acquired(t, l, target, swanlock.WithTTL(ttl))
				must(t, calls[name](held))
				next, err := acquirers[0].with(dial(t, driver)).Acquire(shortly(t), target)
				now := held.Err()
				must(t, err)
				wantIs(t, now, swanlock.ErrExpired)
				must(t, next.Release(bg))
			})
		}
	}
}

// TestLeaseEndsBeforeTheAnswer: a lock whose lease had ended before the answer came is
// no lock.
func TestLeaseEndsBeforeTheAnswer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, by := range acquirers {
			o, target := observe(t), newTarget(t)
			l, _ := slow(t, driver, by, 100*time.Millisecond)
			held, err := l.TryAcquire(bg, target, swanlock.WithTTL(50*time.Millisecond))
			if held != nil {
				t.Errorf("%s: got a lock after its TTL", by.name)
			}
			wantIs(t, err, swanlock.ErrNotAcquired)
			o.wantSoonFree(target)
		}
	})
}

// TestSessionCloseOnASilentServer: Close returns in time and leaves nothing held, though
// the prepared statements cannot be let go of.
func TestSessionCloseOnASilentServer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, holding := range []bool{false, true} {
			o, p, late := observe(t), newProxy(t), watchScheduler(t)
			conn := connOf(t, openURL(t, driver, p.url))
			s, target := pglock.NewSession(conn), newTarget(t)
			held, theirs := acquired(t, s, target), acquired(t, functions{conn}, target+"/theirs")
			if !holding {
				must(t, held.Release(bg))
			}
			pid := pidOf(t, conn)
			p.muted.Store(true)
			start := time.Now()
			ctx, cancel := context.WithTimeout(bg, 100*time.Millisecond)
			err := s.Close(ctx)
			cancel()
			if took := time.Since(start); took > 3*time.Second+late() {
				t.Errorf("holding %t: Close took %v, with a context of 100 ms", holding, took)
			}
			if holding {
				wantIs(t, err, swanlock.ErrLost)
				o.wantSoonFree(target)
			}
			eventually(t, "the backend has ended", func() bool { return !o.alive(pid) })
			wantUnusable(t, conn)
			wantIs(t, ended(t, theirs), swanlock.ErrLost)
			runtime.KeepAlive(held)
			runtime.KeepAlive(theirs)
		}
	})
}
