package multilock_test

import (
	"context"
	"errors"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/multilock"
)

// brokenAt returns a Locker on space that does something else for one target.
func brokenAt(space *memlock.Locker, target string, does func() (swanlock.DistributedLock, error)) swanlock.Locker {
	return &mocks.Locker{TryAcquireFunc: func(ctx context.Context, t string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
		if t == target {
			return does()
		}
		return space.TryAcquire(ctx, t, opts...)
	}}
}

// TestNeither: a locker that returns neither a lock nor an error is an error, and what
// it granted is free again.
func TestNeither(t *testing.T) {
	for _, target := range []string{"a", "b"} {
		space := memlock.New()
		l := brokenAt(space, target, func() (swanlock.DistributedLock, error) { return nil, nil })
		for _, acquire := range []func(context.Context, swanlock.Locker, []string, ...swanlock.Option) (swanlock.DistributedLock, error){
			multilock.TryAcquire, multilock.Acquire,
		} {
			if held, err := acquire(t.Context(), l, []string{"a", "b"}); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("got %v, %v, want an error of its own", held, err)
			}
			free(t, space, "a", "b")
		}
		l = &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
			return nil, swanlock.ErrNotAcquired
		}, AcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return nil, nil }}
		if held, err := multilock.Acquire(t.Context(), l, []string{"a", "b"}); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("after a wait: got %v, %v, want an error of its own", held, err)
		}
	}
}

// TestPanicOfTry: a panic of one of the tries, which are made at the same time, is the
// caller's, who may recover it, and what the others were granted is free again.
func TestPanicOfTry(t *testing.T) {
	for _, target := range []string{"a", "b"} {
		space := memlock.New()
		l := brokenAt(space, target, func() (swanlock.DistributedLock, error) { panic("a bug") })
		func() {
			defer func() {
				if p := recover(); p != "a bug" {
					t.Errorf("it panicked with %v", p)
				}
			}()
			_, _ = multilock.TryAcquire(t.Context(), l, []string{"a", "b", "c"})
		}()
		free(t, space, "a", "b", "c")
	}
}

// TestTryEndsItsGoroutine: where one of the tries ends its goroutine, so does the caller,
// and what the others were granted is free again.
func TestTryEndsItsGoroutine(t *testing.T) {
	for _, target := range []string{"a", "b"} {
		space := memlock.New()
		l := brokenAt(space, target, func() (swanlock.DistributedLock, error) { runtime.Goexit(); return nil, nil })
		ended := make(chan any)
		go func() {
			defer close(ended)
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("it panicked with %v", p)
				}
			}()
			held, err := multilock.TryAcquire(t.Context(), l, []string{"a", "b", "c"})
			t.Errorf("it returned %v, %v", held, err)
		}()
		<-ended
		free(t, space, "a", "b", "c")
	}
}

// TestPanicOfRelease: after a panic of a part's Release the Lock is held, in part, and
// may be released again.
func TestPanicOfRelease(t *testing.T) {
	space := memlock.New()
	bug := true
	l := &mocks.Locker{TryAcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
		part, err := space.TryAcquire(ctx, target, opts...)
		return &mocks.DistributedLock{InfoFunc: part.Info, ErrFunc: part.Err, ReleaseFunc: func(ctx context.Context) error {
			if bug {
				bug = false
				panic("a bug")
			}
			return part.Release(ctx)
		}}, err
	}}
	held, err := multilock.TryAcquire(t.Context(), l, []string{"a", "b"})
	must(t, err)
	func() {
		defer func() { _ = recover() }()
		_ = held.Release(t.Context())
	}()
	must(t, held.Release(t.Context()))
	free(t, space, "a", "b")
}

// TestPanicOfRefresh: when a part that was waited for panics as all are refreshed, all
// are free again.
func TestPanicOfRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		busy, err := space.TryAcquire(t.Context(), "b")
		must(t, err)
		time.AfterFunc(time.Second, func() { busy.Release(bg) })
		l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			part, err := space.Acquire(ctx, target, opts...)
			return &mocks.DistributedLock{InfoFunc: part.Info, ErrFunc: part.Err, ReleaseFunc: part.Release,
				RefreshFunc: func(context.Context) error { panic("a bug") }}, err
		}}
		func() {
			defer func() {
				if p := recover(); p != "a bug" {
					t.Errorf("it panicked with %v", p)
				}
			}()
			_, _ = multilock.Acquire(t.Context(), l, []string{"a", "b"}, swanlock.WithTTL(time.Minute))
		}()
		free(t, space, "a", "b")
	})
}

// TestPanicWhileWaiting: a panic of a refresh while another target is waited for is the
// caller's, too, when the wait is over.
func TestPanicWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space, targets := memlock.New(), []string{"b", "a"} // in the order of their keys
		busy, err := space.TryAcquire(t.Context(), targets[1])
		must(t, err)
		time.AfterFunc(time.Hour, func() { busy.Release(bg) })
		bug := true // once, so that the refresh after the wait does not show it
		l := &mocks.Locker{AcquireFunc: space.Acquire, TryAcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			part, err := space.TryAcquire(ctx, target, opts...)
			if err != nil {
				return nil, err
			}
			return &mocks.DistributedLock{InfoFunc: part.Info, ErrFunc: part.Err, ReleaseFunc: part.Release,
				RefreshFunc: func(context.Context) error {
					if bug {
						bug = false
						panic("a bug")
					}
					return nil
				}}, nil
		}}
		func() {
			defer func() {
				if p := recover(); p != "a bug" {
					t.Errorf("it panicked with %v", p)
				}
			}()
			_, _ = multilock.Acquire(t.Context(), l, targets, swanlock.WithTTL(2*time.Hour))
		}()
		free(t, space, targets...)
	})
}

// TestGiveBackOnce: a server that does not answer is waited for once, and not once for
// each target, when what it granted is given back.
func TestGiveBackOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const patience = 2 * time.Second
		l := &mocks.Locker{TryAcquireFunc: func(_ context.Context, target string, _ ...swanlock.Option) (swanlock.DistributedLock, error) {
			if target == "away" {
				return nil, errors.New("the server is away")
			}
			return &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { time.Sleep(patience); return swanlock.ErrLost }}, nil
		}}
		targets := []string{"away"}
		for r := 'a'; r <= 'z'; r++ {
			targets = append(targets, string(r))
		}
		begin := time.Now()
		if _, err := multilock.TryAcquire(t.Context(), l, targets); err == nil {
			t.Error("there is no error")
		}
		// Those before the one that failed, and those after it.
		if took := time.Since(begin); took > 2*patience {
			t.Errorf("it took %v, want %v", took, 2*patience)
		}
	})
}

// TestLongTargetIsLost: the error of a loss does not show a long target whole.
func TestLongTargetIsLost(t *testing.T) {
	space, long := memlock.New(), strings.Repeat("x", 1<<20)
	held, err := multilock.TryAcquire(t.Context(), space, []string{"a", long})
	must(t, err)
	space.Lose(long, nil)
	for what, err := range map[string]error{"Err": held.Err(), "Refresh": held.Refresh(t.Context()), "Release": held.Release(t.Context())} {
		if !errors.Is(err, swanlock.ErrLost) || len(err.Error()) > 2000 {
			t.Errorf("%s: an error of %d bytes: %.100s", what, len(err.Error()), err)
		}
	}
}

// TestEndsWithTheAnswer: the error matches the cause of a context that ends as the
// locker has answered.
func TestEndsWithTheAnswer(t *testing.T) {
	cause := errors.New("the caller was stopped")
	for name, answer := range map[string]error{"held": swanlock.ErrNotAcquired, "failed": errors.New("away")} {
		for _, acquire := range []func(context.Context, swanlock.Locker, []string, ...swanlock.Option) (swanlock.DistributedLock, error){
			multilock.TryAcquire, multilock.Acquire,
		} {
			ctx, stop := context.WithCancelCause(t.Context())
			l := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
				stop(cause)
				return nil, answer
			}}
			if _, err := acquire(ctx, l, []string{"a", "b"}); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) || !errors.Is(err, answer) {
				t.Errorf("%s: got %v, want ErrNotAcquired with the cause %q", name, err, cause)
			}
		}
	}
}

// TestEndsAsTheRestIsGivenBack: Acquire does not wait for a target if its context ends
// while others are given back. The error matches the cause.
func TestEndsAsTheRestIsGivenBack(t *testing.T) {
	cause := errors.New("the caller was stopped")
	ctx, stop := context.WithCancelCause(t.Context())
	targets := []string{"b", "a"} // in the order of their keys
	l := &mocks.Locker{TryAcquireFunc: func(_ context.Context, target string, _ ...swanlock.Option) (swanlock.DistributedLock, error) {
		if target == targets[0] {
			return nil, swanlock.ErrNotAcquired
		}
		return &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { stop(cause); return nil }}, nil
	}}
	if _, err := multilock.Acquire(ctx, l, targets); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) {
		t.Errorf("got %v, want ErrNotAcquired with the cause %q", err, cause)
	}
}
