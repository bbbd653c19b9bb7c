package memlock

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const target = "/some/target"

func TestConformance(t *testing.T) {
	kinds := []struct {
		name      string
		one       bool
		newLocker func(space *Locker) swanlock.Locker
		opts      []locktest.Option
	}{
		{"New", false, func(space *Locker) swanlock.Locker { return space }, []locktest.Option{locktest.Pooled("each lock is its own session")}},
		{"Session", true, func(space *Locker) swanlock.Locker { return space.Session() }, nil},
	}
	for _, kind := range kinds {
		space := New()
		opts := append(kind.opts, locktest.Fair(), locktest.ShortTTL(300*time.Millisecond),
			locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
				if !space.Lose(held.Info().Target, errors.New("conformance")) {
					t.Errorf("Lose: got false, want true")
				}
			}))
		newLocker := func(*testing.T) swanlock.Locker { return kind.newLocker(space) }
		t.Run(kind.name, func(t *testing.T) { locktest.Run(t, newLocker, append(opts, locktest.InBubble())...) })
		if !kind.one { // once in real time is enough
			t.Run(kind.name+"InRealTime", func(t *testing.T) { locktest.Run(t, newLocker, opts...) })
		}
		if n := len(space.space.lines); n != 0 {
			t.Errorf("%s: got %d lines left after all was released, want 0", kind.name, n)
		}
	}
}

func mustTry(t *testing.T, l *Locker, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	held, err := l.TryAcquire(t.Context(), target, opts...)
	if err != nil {
		t.Fatalf("TryAcquire: %v", err)
	}
	return held
}

func release(t *testing.T, held swanlock.DistributedLock) {
	t.Helper()
	if err := held.Release(t.Context()); err != nil {
		t.Errorf("Release: %v", err)
	}
}

func empty(t *testing.T, l *Locker) {
	t.Helper()
	l.space.mu.Lock()
	defer l.space.mu.Unlock()
	if n := len(l.space.lines); n != 0 {
		t.Errorf("got %d lines left after all was released, want 0", n)
	}
}

// A queue notes in which order its waiters were granted the lock.
type queue struct {
	t     *testing.T
	l     *Locker
	mu    sync.Mutex
	order []string
}

// join puts a waiter at the end of the line and returns once it waits there.
func (q *queue) join(ctx context.Context, name string, opts ...swanlock.Option) {
	go func() {
		held, err := q.l.Acquire(ctx, target, opts...)
		if err != nil {
			q.note(name + " gave up")
			return
		}
		q.note(name)
		time.Sleep(time.Second)
		release(q.t, held)
	}()
	synctest.Wait()
}

func (q *queue) note(s string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.order = append(q.order, s)
}

func (q *queue) want(want ...string) {
	q.t.Helper()
	synctest.Wait()
	q.mu.Lock()
	defer q.mu.Unlock()
	slices.Sort(q.order) // Grants at the same time have no order.
	if !slices.Equal(q.order, want) {
		q.t.Errorf("granted now: got %q, want %q", q.order, want)
	}
	q.order = nil
}

func TestLineIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{t: t, l: New()}
		ctx, shared := t.Context(), swanlock.WithShared()
		held := mustTry(t, q.l, shared)
		q.join(ctx, "r1", shared) // beside the reader that holds it
		q.want("r1")
		q.join(ctx, "w1")
		q.join(ctx, "r2", shared)
		q.join(ctx, "r3", shared)
		q.join(ctx, "w2")
		q.join(ctx, "r4", shared)
		q.want()
		if _, err := q.l.TryAcquire(ctx, target, shared); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a reader's try past a waiting writer: got %v, want ErrNotAcquired", err)
		}
		time.Sleep(time.Second) // r1 leaves
		q.want()
		release(t, held)
		q.want("w1")
		time.Sleep(time.Second)
		q.want("r2", "r3") // together
		time.Sleep(time.Second)
		q.want("w2")
		time.Sleep(time.Second)
		q.want("r4")
		time.Sleep(time.Second)
		synctest.Wait()
		empty(t, q.l)
	})
}

func TestLeavingTheLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		q := &queue{t: t, l: New()}
		ctx, cancel := context.WithCancel(t.Context())
		held := mustTry(t, q.l, swanlock.WithShared())
		q.join(ctx, "w1")
		q.join(t.Context(), "r1", swanlock.WithShared())
		q.join(ctx, "w2")
		q.join(t.Context(), "r2", swanlock.WithShared())
		cancel()
		q.want("r1", "r2", "w1 gave up", "w2 gave up") // nothing stands in the readers' way now
		release(t, held)
		time.Sleep(time.Second)
		synctest.Wait()
		empty(t, q.l)
	})
}

// A waiter that is granted the lock in the moment in which its context ends
// must hand it on, whichever it sees first.
func TestGrantAsContextEnds(t *testing.T) {
	for i := range 100 {
		synctest.Test(t, func(t *testing.T) {
			l := New()
			ctx, cancel := context.WithCancelCause(t.Context())
			held := mustTry(t, l)
			cause := errors.New("shutdown")
			got := make(chan error, 1)
			go func() {
				_, err := l.Acquire(ctx, target)
				got <- err
			}()
			synctest.Wait()
			q := &queue{t: t, l: l}
			q.join(t.Context(), "next")
			if i%2 == 0 {
				cancel(cause)
				release(t, held)
			} else {
				release(t, held)
				cancel(cause)
			}
			// In the second order it may have returned before cancel.
			if err := <-got; err == nil && i%2 == 1 {
				l.Lose(target, nil)
			} else if !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) {
				t.Errorf("got %v, want ErrNotAcquired and the cause", err)
			}
			q.want("next")
			time.Sleep(time.Second)
			synctest.Wait()
			empty(t, l)
		})
	}
}

func TestSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		one, two := l.Session(), l.Session()
		held := mustTry(t, one)
		for name, other := range map[string]*Locker{"the pool": l, "another session": two, "a session's session": one.Session()} {
			if _, err := other.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrAlreadyHeld) {
				t.Errorf("%s: got %v, want ErrNotAcquired alone", name, err)
			}
		}

		// A session that waits twice: when it is granted one, the other would
		// wait for itself.
		results := make(chan error, 2)
		locks := make(chan swanlock.DistributedLock, 2)
		for range 2 {
			go func() {
				held, err := two.Acquire(t.Context(), target)
				if err == nil {
					locks <- held
				}
				results <- err
			}()
		}
		synctest.Wait()
		release(t, held)
		first, second := <-results, <-results
		if (first == nil) == (second == nil) || !errors.Is(errors.Join(first, second), swanlock.ErrAlreadyHeld) {
			t.Errorf("two waits of one session: got %v and %v, want one lock and one ErrAlreadyHeld", first, second)
		}
		release(t, <-locks)
		empty(t, l)
	})
}

func TestTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, begin := New(), time.Now()
		held := mustTry(t, l, swanlock.WithTTL(time.Hour))
		next, err := l.Acquire(t.Context(), target, swanlock.WithTTL(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(begin), time.Hour; got != want {
			t.Errorf("granted after %v, want %v", got, want)
		}
		if got, want := next.Info().AcquiredAt, begin.Add(time.Hour); !got.Equal(want) {
			t.Errorf("AcquiredAt: got %v, want the grant's time %v", got, want)
		}
		if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("Err: got %v, want ErrExpired", err)
		}
		time.Sleep(40 * time.Minute)
		if err := next.Refresh(t.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		<-next.Done()
		if got, want := time.Since(begin), 2*time.Hour+40*time.Minute; got != want {
			t.Errorf("a TTL that began at a grant and was refreshed ended after %v, want %v", got, want)
		}
		empty(t, l)
	})
}

// Err, Refresh, Release and a rival's try look at the clock themselves: a
// caller that wakes at the deadline, before the timer does, must see it all the
// same.
func TestClockDecides(t *testing.T) {
	asks := map[string]func(l *Locker, held swanlock.DistributedLock) error{
		"Err":     func(_ *Locker, held swanlock.DistributedLock) error { return held.Err() },
		"Refresh": func(_ *Locker, held swanlock.DistributedLock) error { return held.Refresh(context.Background()) },
		"Release": func(_ *Locker, held swanlock.DistributedLock) error { return held.Release(context.Background()) },
		"Lose": func(l *Locker, held swanlock.DistributedLock) error {
			if l.Lose(target, errors.New("too late")) {
				return errors.New("Lose found somebody")
			}
			return held.(*lock).err
		},
		"a rival": func(l *Locker, held swanlock.DistributedLock) error {
			if _, err := l.TryAcquire(context.Background(), target); err != nil {
				return err
			}
			return held.(*lock).err
		},
	}
	for name, ask := range asks {
		l := New()
		held := mustTry(t, l, swanlock.WithTTL(time.Millisecond))
		k := held.(*lock)
		l.space.mu.Lock()
		k.timer.Stop() // it is late
		l.space.mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		if err := ask(l, held); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("%s after the deadline, before the timer: got %v, want ErrExpired", name, err)
		}
		select {
		case <-held.Done():
		default:
			t.Errorf("%s after the deadline, before the timer: Done is open", name)
		}
	}
}

func TestAutoRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		held := mustTry(t, l, swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
		time.Sleep(time.Hour)
		if err := held.Err(); err != nil {
			t.Errorf("Err after an hour of auto-refresh: got %v, want nil", err)
		}
		release(t, held)
		if held.(*lock).timer.Stop() {
			t.Errorf("the timer still runs after Release")
		}
		empty(t, l)
	})
}

func TestRefreshWithEndedContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		held := mustTry(t, New(), swanlock.WithTTL(time.Minute))
		time.Sleep(30 * time.Second)
		cause := errors.New("shutdown")
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if err := held.Refresh(ctx); !errors.Is(err, cause) {
			t.Errorf("got %v, want the cause", err)
		}
		time.Sleep(30 * time.Second)
		if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("Err at the old deadline: got %v, want ErrExpired", err)
		}
	})
}
