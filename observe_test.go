package swanlock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

type ctxKey string

// A recorder is an observer that remembers what it was told.
type recorder struct {
	onBegin func(op swanlock.Op)
	onEnd   func(e swanlock.Event)

	mu     sync.Mutex
	begun  []swanlock.Op
	events []swanlock.Event
	ctxs   []context.Context
}

func (r *recorder) Begin(ctx context.Context, op swanlock.Op, target string) context.Context {
	r.mu.Lock()
	r.begun = append(r.begun, op)
	r.mu.Unlock()
	if r.onBegin != nil {
		r.onBegin(op)
	}
	return context.WithValue(ctx, ctxKey("op"), op)
}

func (r *recorder) End(ctx context.Context, e swanlock.Event) {
	r.mu.Lock()
	r.events = append(r.events, e)
	r.ctxs = append(r.ctxs, ctx)
	r.mu.Unlock()
	if r.onEnd != nil {
		r.onEnd(e)
	}
}

// told returns the events in short, and forgets them.
func (r *recorder) told() (told []string) {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		short := fmt.Sprintf("%v %s %s", e.Op, e.Target, e.Outcome)
		if e.Ended {
			short += " ended after " + e.Held.String()
		}
		told = append(told, short)
	}
	r.events, r.ctxs, r.begun = nil, nil, nil
	return told
}

func (r *recorder) want(t *testing.T, want ...string) {
	t.Helper()
	if got := r.told(); !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestObserveByNobody(t *testing.T) {
	l := memlock.New()
	for _, observers := range [][]swanlock.Observer{nil, {}, {nil, nil}} {
		if got := swanlock.Observe(l, observers...); got != swanlock.Locker(l) {
			t.Errorf("%d observers: got %T, want the very locker", len(observers), got)
		}
	}
}

func TestObserve(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, other := &recorder{}, &recorder{}
		space := memlock.New()
		l := swanlock.Observe(space, nil, r, other)
		ctx, cancel := context.WithCancel(t.Context())

		held, err := l.TryAcquire(ctx, "a", swanlock.WithTTL(time.Minute), swanlock.WithFence(), swanlock.WithOwner("me"))
		if err != nil {
			t.Fatal(err)
		}
		e := r.events[0]
		if e.Info != held.Info() || e.Info.Fence != 1 || e.Info.Owner != "me" || e.Err != nil || e.Ended || e.Shared {
			t.Errorf("granted: got %+v, want the info of %+v", e, held.Info())
		}
		r.want(t, "try a acquired")
		_, err = l.TryAcquire(ctx, "a", swanlock.WithShared())
		if e := r.events[0]; !errors.Is(err, swanlock.ErrNotAcquired) || e.Err != err || !e.Shared || e.Info != (swanlock.Info{}) {
			t.Errorf("held elsewhere: got %v, told %+v", err, e)
		}
		r.want(t, "try a not_acquired")
		_, err = l.TryAcquire(ctx, "")
		if errors.Is(err, swanlock.ErrNotAcquired) || r.events[0].Err != err {
			t.Errorf("no target: got %v, told %v", err, r.events[0].Err)
		}
		r.want(t, "try  error")

		time.Sleep(20 * time.Second)
		if err := held.Refresh(ctx); err != nil {
			t.Error(err)
		}
		r.want(t, "refresh a ok")
		go func() {
			time.Sleep(10 * time.Second)
			cancel()
		}()
		_, err = l.Acquire(ctx, "a")
		if e := r.events[0]; e.Took != 10*time.Second || !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: got %v, told that it took %v; want 10s", err, e.Took)
		}
		r.want(t, "acquire a cancelled")
		if err := held.Refresh(ctx); err == nil {
			t.Error("Refresh with a context that has ended: got nil")
		}
		r.want(t, "refresh a error")
		for range 2 {
			if err := held.Release(ctx); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		r.want(t, "release a ok ended after 30s", "release a ok")
		other.want(t, "try a acquired", "try a not_acquired", "try  error", "refresh a ok", "acquire a cancelled", "refresh a error",
			"release a ok ended after 30s", "release a ok")
	})
}

// A locker that returns neither a lock nor an error is told to have failed.
func TestObserveNeither(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		l := swanlock.Observe(&mocks.Locker{AcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return nil, nil }}, r)
		if held, err := l.Acquire(t.Context(), "t"); held != nil || err != nil {
			t.Errorf("got %v, %v, want what the locker returns", held, err)
		}
		if e := r.events[0]; e.Err == nil {
			t.Error("no error is told")
		}
		r.want(t, "acquire t error")
	})
}

// A loss is told once, by the first that finds out, and when it has happened.
func TestObserveLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		space := memlock.New()
		l := swanlock.Observe(space, r)
		acquire := func(opts ...swanlock.Option) swanlock.DistributedLock {
			held, err := l.Acquire(context.WithValue(t.Context(), ctxKey("who"), "me"), "t", opts...)
			if err != nil {
				t.Fatal(err)
			}
			return held
		}

		held := acquire(swanlock.WithTTL(time.Minute))
		time.Sleep(time.Minute)
		r.want(t, "acquire t acquired", "loss t expired ended after 1m0s")
		if err := held.Release(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
			t.Error(err)
		}
		r.want(t, "release t lost")

		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), ctxKey("who"), "me"))
		if _, err := l.Acquire(ctx, "t"); err != nil {
			t.Fatal(err)
		}
		cancel()
		time.Sleep(time.Hour)
		space.Lose("t", errors.New("killed"))
		synctest.Wait()
		if e, ctx := r.events[1], r.ctxs[1]; !errors.Is(e.Err, swanlock.ErrLost) || ctx.Value(ctxKey("op")) != swanlock.OpAcquire || ctx.Value(ctxKey("who")) != "me" || ctx.Err() != nil {
			t.Errorf("got %v under %v; want a loss under a context that does not end, with the acquire's values", e.Err, ctx)
		}
		r.want(t, "acquire t acquired", "loss t lost ended after 1h0m0s")

		// What a call finds out is told before the call's own end.
		m := &mocks.DistributedLock{RefreshFunc: func(context.Context) error { return swanlock.ErrLost },
			ReleaseFunc: func(context.Context) error { return swanlock.ErrLost }}
		grant := func() swanlock.DistributedLock { return observed(t, m, r) }
		held = grant()
		_, _ = held.Refresh(t.Context()), held.Release(t.Context())
		if got, want := r.told(), []string{"try t acquired", "loss t lost", "refresh t lost", "release t lost"}; len(got) != 4 || got[0] != want[0] || got[1][:11] != want[1] || got[2] != want[2] || got[3] != want[3] {
			t.Errorf("got %q, want %q", got, want)
		}
		// A Release that could not be sent leaves the lock, whose end is told still.
		busy := errors.New("busy")
		var over error
		done := make(chan struct{})
		m = &mocks.DistributedLock{InfoFunc: func() swanlock.Info { return swanlock.Info{AcquiredAt: time.Now()} },
			ReleaseFunc: func(context.Context) error { return busy }, ErrFunc: func() error { return over }, DoneFunc: func() <-chan struct{} { return done }}
		held = grant()
		if err := held.Release(t.Context()); err != busy {
			t.Errorf("got %v, want %v", err, busy)
		}
		r.want(t, "try t acquired", "release t error")
		over = swanlock.ErrLost
		close(done)
		r.want(t, "loss t lost ended after 0s")
	})
}

// TestObserveReleaseDuringLoss: Release does not wait for the goroutine that tells
// the loss of a lock without AfterDone.
func TestObserveReleaseDuringLoss(t *testing.T) {
	done, asked, released := make(chan struct{}), make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	m := &mocks.DistributedLock{
		DoneFunc:    func() <-chan struct{} { return done },
		ReleaseFunc: func(context.Context) error { return swanlock.ErrLost },
		ErrFunc: func() error {
			if first.CompareAndSwap(false, true) { // that goroutine's
				close(asked)
				<-released
			}
			return swanlock.ErrLost
		},
	}
	r := &recorder{}
	l := swanlock.Observe(&mocks.Locker{
		TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return m, nil },
	}, r)
	held, err := l.TryAcquire(t.Context(), "a")
	if err != nil {
		t.Fatal(err)
	}
	close(done)
	<-asked
	go func() {
		defer close(released)
		if err := held.Release(t.Context()); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("Release: got %v, want ErrLost", err)
		}
	}()
	select {
	case <-released:
	case <-time.After(10 * time.Second):
		t.Fatal("Release waits for the goroutine that tells the loss")
	}
}

// A lock that was released by other means than the observed lock is over, too.
func TestObserveReleaseElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		inner := memlock.New()
		l := swanlock.Observe(swanlock.Observe(inner, &recorder{}), r)
		held := mustAcquire(t, l)
		for range 2 {
			outer := held.(interface {
				Unwrap() swanlock.DistributedLock
			})
			if err := outer.Unwrap().Release(t.Context()); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Second)
		}
		r.want(t, "acquire t acquired", "release t ok ended after 0s")
	})
}

// Observing costs no goroutine for each lock of memlock, and for another one that
// ends with the lock.
func TestObserveGoroutines(t *testing.T) {
	const locks = 100
	for name, tt := range map[string]struct {
		l    swanlock.Locker
		want int
	}{
		"memlock":         {memlock.New(), 0},
		"memlock, nested": {swanlock.Observe(memlock.New(), &recorder{}), 0},
		"mocks":           {&mocks.Locker{}, locks},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := swanlock.Observe(tt.l, &recorder{})
			before := runtime.NumGoroutine()
			var all []swanlock.DistributedLock
			for i := range locks {
				held, err := l.TryAcquire(t.Context(), fmt.Sprint("t", i), swanlock.WithTTL(time.Hour))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, held)
			}
			synctest.Wait()
			if got := runtime.NumGoroutine() - before; got < tt.want-locks/10 || got > tt.want+locks/10 { // Others come and go.
				t.Errorf("%s: got %d goroutines for %d locks, want %d", name, got, locks, tt.want)
			}
			for _, held := range all {
				if err := held.Release(t.Context()); err != nil {
					t.Error(err)
				}
			}
			synctest.Wait()
			if got := runtime.NumGoroutine() - before; got > locks/10 {
				t.Errorf("%s: got %d goroutines after the releases, want 0", name, got)
			}
		})
	}
}

// A call that panics ends for the observers, who have counted its beginning.
func TestObserveCallPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		m := &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { panic("release") }}
		mock := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { panic("try") },
			AcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return m, nil }}
		l := swanlock.Observe(mock, r)
		panics := func(want string, f func()) {
			t.Helper()
			defer func() {
				if got := recover(); got != want {
					t.Errorf("got the panic %v, want %v", got, want)
				}
			}()
			f()
		}
		panics("try", func() { l.TryAcquire(t.Context(), "t") })
		r.want(t, "try t error")
		held, _ := l.Acquire(t.Context(), "t")
		panics("release", func() { held.Release(t.Context()) })
		r.want(t, "acquire t acquired", "release t error")
		m.Lose(nil)
		if got := r.told(); len(got) != 1 || got[0][:11] != "loss t lost" {
			t.Errorf("got %q, want the loss", got)
		}
	})
}

func TestAs(t *testing.T) {
	m := &mocks.DistributedLock{}
	mock := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return m, nil }}
	held, err := swanlock.Observe(swanlock.Observe(mock, &recorder{}), &recorder{}).TryAcquire(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Release(t.Context())
	if got, ok := swanlock.As[*mocks.DistributedLock](held); !ok || got != m {
		t.Errorf("got %v, %t; want the mock", got, ok)
	}
	if got, ok := swanlock.As[interface {
		swanlock.DistributedLock
		Calls() []mocks.LockCall
	}](held); !ok || got != swanlock.DistributedLock(m) {
		t.Errorf("an interface: got %v, %t; want the mock", got, ok)
	}
	if got, ok := swanlock.As[swanlock.DistributedLock](held); !ok || got != held {
		t.Errorf("a DistributedLock: got %v, %t; want the lock itself", got, ok)
	}
	type another struct{ swanlock.DistributedLock }
	for _, lock := range []swanlock.DistributedLock{held, nil} {
		if got, ok := swanlock.As[*another](lock); ok || got != nil {
			t.Errorf("got %v, %t; want none", got, ok)
		}
	}
}

// Locks pass the suite while they are observed, by one that sees all, panics, or
// blocks.
func TestObserveConformance(t *testing.T) {
	quiet(t)
	for name, observer := range map[string]swanlock.Observer{
		"recorder": &recorder{},
		"panics":   &recorder{onBegin: func(swanlock.Op) { panic("begin") }, onEnd: func(swanlock.Event) { panic("end") }},
	} {
		t.Run(name, func(t *testing.T) {
			space := memlock.New()
			newLocker := func(*testing.T) swanlock.Locker { return swanlock.Observe(space, observer) }
			locktest.Run(t, newLocker, locktest.InBubble(), locktest.Pooled("each lock is its own session"), locktest.Fair(), locktest.ShortTTL(300*time.Millisecond),
				locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
					space.Lose(held.Info().Target, errors.New("conformance"))
				}))
		})
	}
}
