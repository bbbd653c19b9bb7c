package lease_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A server is a Backend with one lock, which it lends for ttl. Its methods can
// be replaced.
type server struct {
	refresh func(ctx context.Context) error
	release func(ctx context.Context) (bool, error)

	mu    sync.Mutex
	calls int // under way
	ends  time.Time
	ttl   time.Duration
	freed int
}

func (s *server) alone(t *testing.T) func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.calls++; s.calls > 1 {
		t.Error("the Backend was called by two at once")
	}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.calls--
	}
}

func (s *server) begin() { s.mu.Lock(); s.ends = time.Now().Add(s.ttl); s.mu.Unlock() }

func (s *server) holds() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ttl == 0 && !s.ends.IsZero() || time.Now().Before(s.ends)
}

type backend struct {
	t *testing.T
	*server
}

func (b backend) Refresh(ctx context.Context) error {
	defer b.alone(b.t)()
	if b.refresh != nil {
		return b.refresh(ctx)
	}
	if !b.holds() {
		return swanlock.ErrLost
	}
	b.begin()
	return nil
}

func (b backend) Release(ctx context.Context) (bool, error) {
	defer b.alone(b.t)()
	if b.release != nil {
		return b.release(ctx)
	}
	held := b.holds()
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ends = time.Time{}
	b.freed++
	return held, nil
}

const ttl = 9 * time.Second

// newServer returns a server that lends its lock for ttl, and a Request for it.
func newServer(t *testing.T, opts ...swanlock.Option) (*server, lease.Request) {
	t.Helper()
	o, err := swanlock.NewOptions("target", opts...)
	if err != nil {
		t.Fatal(err)
	}
	s := &server{ttl: ttl}
	return s, lease.Request{Package: "testlock", Target: "target", Options: o, Lease: ttl, Backend: backend{t, s}}
}

func mustTry(t *testing.T, s *server, r lease.Request) *lease.Lock {
	t.Helper()
	held, err := lease.Try(t.Context(), r, func(context.Context) (uint64, error) { s.begin(); return 7, nil })
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func is(t *testing.T, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("got %v, want an error that matches %v", err, w)
		}
	}
}

func closed(c <-chan struct{}) bool {
	synctest.Wait()
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestDeadline: the deadline counts from before the request was sent, Done is
// closed then and not sooner, and a refresh moves it on.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl), swanlock.WithOwner("o"), swanlock.WithShared())
		start := time.Now()
		held, err := lease.Try(t.Context(), r, func(context.Context) (uint64, error) {
			time.Sleep(time.Second) // the way there
			s.begin()
			time.Sleep(time.Second) // the way back
			return 7, nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := swanlock.Info{Target: "target", Owner: "o", TTL: ttl, AcquiredAt: start, Fence: 7, Shared: true}
		if got := held.Info(); got != want {
			t.Errorf("Info: got %+v, want %+v", got, want)
		}
		deadline := func(want time.Time) {
			t.Helper()
			if got, ok := held.Deadline(); !ok || !got.Equal(want) {
				t.Errorf("Deadline: got %v, %t, want %v", got, ok, want)
			}
		}
		deadline(start.Add(ttl))
		s.refresh = func(context.Context) error { s.begin(); time.Sleep(2 * time.Second); return nil }
		sent := time.Now()
		if err := held.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		deadline(sent.Add(ttl))
		time.Sleep(time.Until(sent.Add(ttl)) - time.Nanosecond)
		if closed(held.Done()) || held.Err() != nil {
			t.Errorf("over before its deadline: %v", held.Err())
		}
		time.Sleep(time.Nanosecond)
		if !closed(held.Done()) {
			t.Error("Done is open at the deadline")
		}
		is(t, held.Err(), swanlock.ErrExpired)
		is(t, held.Refresh(t.Context()), swanlock.ErrExpired)
		is(t, held.Release(t.Context()), swanlock.ErrExpired)
		if err := held.Release(t.Context()); err != nil {
			t.Errorf("second Release: %v", err)
		}
		if s.freed != 1 {
			t.Errorf("a Release after the end was sent %d times, want once: the server may keep the lock longer", s.freed)
		}
	})
}

// TestKeptAlive: WithAutoRefresh, and a lease for a lock without a TTL, are
// refreshed in the background until the release, and not afterwards. One refresh
// may fail or get no answer.
func TestKeptAlive(t *testing.T) {
	for name, opts := range map[string][]swanlock.Option{
		"auto-refresh": {swanlock.WithTTL(ttl), swanlock.WithAutoRefresh()},
		"no TTL":       nil,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := newServer(t, opts...)
				n := 0
				s.refresh = func(ctx context.Context) error {
					switch n++; n % 4 {
					case 1:
						<-ctx.Done() // as a server that hangs
						return ctx.Err()
					case 3:
						return errors.New("connection refused")
					}
					s.begin()
					return nil
				}
				held := mustTry(t, s, r)
				time.Sleep(10 * ttl)
				if held.Err() != nil || !s.holds() {
					t.Fatalf("%v; the server holds it: %t", held.Err(), s.holds())
				}
				if err := held.Release(t.Context()); err != nil {
					t.Error(err)
				}
				is(t, held.Err(), swanlock.ErrReleased)
				if n < 20 || n > 40 {
					t.Errorf("%d refreshes in ten leases, want three a lease", n)
				}
				before := n
				time.Sleep(ttl)
				if n != before {
					t.Error("it was refreshed after its release")
				}
			})
		})
	}
}

// TestNoLease: without a lease nothing is refreshed, and there is no deadline.
func TestNoLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t)
		r.Lease, s.ttl = 0, 0
		held := mustTry(t, s, r)
		s.refresh = func(context.Context) error { t.Error("refreshed"); return nil }
		time.Sleep(1000 * time.Hour)
		if _, ok := held.Deadline(); ok || held.Err() != nil {
			t.Errorf("it has a deadline (%t), or is over: %v", ok, held.Err())
		}
		if err := held.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestExpiryTellsWhy: the error of the last refresh in the background is the
// cause.
func TestExpiryTellsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl), swanlock.WithAutoRefresh())
		refused := errors.New("connection refused")
		s.refresh = func(context.Context) error { return refused }
		held := mustTry(t, s, r)
		var told error
		held.AfterDone(func(err error) { told = err })
		time.Sleep(ttl)
		if !closed(held.Done()) {
			t.Fatal("Done is open at the deadline")
		}
		is(t, held.Err(), swanlock.ErrExpired, refused)
		is(t, told, swanlock.ErrExpired, refused)
		_ = held.Release(t.Context())
	})
}

// TestLost: an answer that the lock is not held ends it at once, any other error
// leaves it as it was.
func TestLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl))
		held := mustTry(t, s, r)
		before, _ := held.Deadline()
		time.Sleep(time.Second)
		refused := errors.New("connection refused")
		s.refresh = func(context.Context) error { return refused }
		is(t, held.Refresh(t.Context()), refused)
		ctx, cancel := context.WithCancelCause(t.Context())
		cause := errors.New("shut down")
		s.refresh = func(ctx context.Context) error { cancel(cause); <-ctx.Done(); return refused }
		is(t, held.Refresh(ctx), cause, refused)
		s.refresh = func(context.Context) error { t.Error("sent, although ctx has ended"); return nil }
		is(t, held.Refresh(ctx), cause)
		if after, _ := held.Deadline(); held.Err() != nil || !after.Equal(before) {
			t.Errorf("after errors: %v, its deadline %v later", held.Err(), after.Sub(before))
		}
		s.refresh = func(context.Context) error { return swanlock.ErrLost }
		is(t, held.Refresh(t.Context()), swanlock.ErrLost)
		if !closed(held.Done()) {
			t.Error("Done is open")
		}
		is(t, held.Release(t.Context()), swanlock.ErrLost)

		held = mustTry(t, s, r)
		held.Loser()(refused)
		is(t, held.Err(), swanlock.ErrLost, refused)
		_ = held.Release(t.Context())
	})
}

// TestLateRefresh: if the answer comes after the deadline, the server has begun
// a lease for a holder that is gone; it is freed.
func TestLateRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl))
		held := mustTry(t, s, r)
		s.refresh = func(context.Context) error { time.Sleep(ttl); s.begin(); return nil }
		is(t, held.Refresh(t.Context()), swanlock.ErrExpired)
		if s.holds() {
			t.Error("the server holds it")
		}
	})
}

// TestReleaseCutsRefreshShort: Release ends a refresh that is under way, is sent
// after it, and frees the lock although its ctx has ended.
func TestReleaseCutsRefreshShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl))
		held := mustTry(t, s, r)
		s.refresh = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		refreshed := make(chan error)
		go func() { refreshed <- held.Refresh(context.Background()) }()
		synctest.Wait()
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := held.Release(ctx); err != nil {
			t.Error(err)
		}
		is(t, <-refreshed, swanlock.ErrReleased)
		if s.holds() || time.Since(start) > 0 {
			t.Errorf("the server holds it: %t, after %v", s.holds(), time.Since(start))
		}
	})
}

// TestOneAtATime: a Backend need not expect two calls at once.
func TestOneAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl))
		s.refresh = func(context.Context) error { time.Sleep(time.Second); return nil }
		held := mustTry(t, s, r)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { is(t, held.Refresh(context.Background())) })
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		synctest.Wait()
		is(t, held.Refresh(ctx), context.DeadlineExceeded)
		if err := held.Release(t.Context()); err != nil {
			t.Error(err)
		}
		wg.Wait()
	})
}

// TestReleaseUncertain: Release tries again while its ctx lives. If it stays
// uncertain that the lock was held until then, it was lost.
func TestReleaseUncertain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl))
		refused := errors.New("connection refused")
		tries := 0
		s.release = func(ctx context.Context) (bool, error) {
			if ctx.Err() != nil {
				t.Error("called under a context that has ended")
			}
			if tries++; tries == 5 {
				return true, nil
			}
			return false, refused
		}
		if err := mustTry(t, s, r).Release(t.Context()); err != nil || tries != 5 {
			t.Errorf("%v after %d tries", err, tries)
		}
		start := time.Now()
		held := mustTry(t, s, r)
		is(t, held.Release(t.Context()), swanlock.ErrLost, refused)
		is(t, held.Err(), swanlock.ErrLost, refused)
		if took := time.Since(start); took > 6*time.Second {
			t.Errorf("Release took %v", took)
		}
		ctx, cancel := context.WithCancel(t.Context())
		held, tries = mustTry(t, s, r), 10
		cancel()
		is(t, held.Release(ctx), swanlock.ErrLost, refused)
		if tries != 11 {
			t.Errorf("%d tries with a ctx that has ended, want 1", tries-10)
		}
		s.release = func(context.Context) (bool, error) { return false, nil }
		is(t, mustTry(t, s, r).Release(t.Context()), swanlock.ErrLost)
		// The first try frees it, and its answer is lost.
		lostAnswer := errors.New("connection reset")
		s.release = func(context.Context) (bool, error) {
			s.release = func(context.Context) (bool, error) { return false, nil }
			return false, lostAnswer
		}
		is(t, mustTry(t, s, r).Release(t.Context()), swanlock.ErrLost, lostAnswer)
	})
}
