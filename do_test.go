package swanlock_test

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
)

var (
	errWork  = errors.New("the work failed")
	errCause = errors.New("shutdown")
)

// A failingLocker's locks are released, and then say that they were not.
type failingLocker struct {
	*memlock.Locker
	err error
}

type failingLock struct {
	swanlock.DistributedLock
	err error
}

func (l failingLocker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	held, err := l.Locker.Acquire(ctx, target, opts...)
	return failingLock{held, l.err}, err
}

func (k failingLock) Release(ctx context.Context) error {
	if err := k.DistributedLock.Release(ctx); err != nil {
		return err
	}
	return k.err
}

func do(f func(ctx context.Context) error) func(context.Context, swanlock.DistributedLock) error {
	return func(ctx context.Context, _ swanlock.DistributedLock) error { return f(ctx) }
}

func wantFree(t *testing.T, l swanlock.Locker) {
	t.Helper()
	held, err := l.TryAcquire(t.Context(), "t")
	if err != nil {
		t.Errorf("the lock was not released: %v", err)
		return
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDoErrors(t *testing.T) {
	errRelease := errors.New("the release failed")
	for _, tt := range []struct {
		name          string
		work, release error
	}{
		{"none", nil, nil},
		{"work", errWork, nil},
		{"release", nil, errRelease},
		{"both", errWork, errRelease},
		{"the same", errRelease, errRelease},
	} {
		l := failingLocker{memlock.New(), tt.release}
		err := swanlock.Do(t.Context(), l, "t", do(func(context.Context) error { return tt.work }))
		if (err == nil) != (tt.work == nil && tt.release == nil) {
			t.Errorf("%s: got %v", tt.name, err)
		}
		for _, want := range []error{tt.work, tt.release} {
			if want != nil && !errors.Is(err, want) {
				t.Errorf("%s: got %v, want it to match %v", tt.name, err, want)
			}
		}
		if tt.work == tt.release && err != tt.work { // the very same
			t.Errorf("%s: got %v, want it once", tt.name, err)
		}
		wantFree(t, l)
	}
}

func TestDoHolds(t *testing.T) {
	l := memlock.New()
	type key struct{}
	ctx := context.WithValue(t.Context(), key{}, "value")
	var inside context.Context
	err := swanlock.Do(ctx, l, "t", func(ctx context.Context, held swanlock.DistributedLock) error {
		inside = ctx
		if got, want := ctx.Value(key{}), "value"; got != want {
			t.Errorf("value of the context: got %v, want %v", got, want)
		}
		if err := ctx.Err(); err != nil {
			t.Errorf("the context has ended: %v", err)
		}
		if got, want := held.Info().Owner, "me"; got != want {
			t.Errorf("owner: got %q, want %q", got, want)
		}
		if _, err := l.TryAcquire(ctx, "t"); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a rival: got %v, want ErrNotAcquired", err)
		}
		return nil
	}, swanlock.WithOwner("me"))
	if err != nil {
		t.Fatal(err)
	}
	if inside == nil || inside.Err() == nil {
		t.Errorf("the context of what ran under Do must end with it")
	}
	wantFree(t, l)
}

// TestNilLocker: a locker that was never made is an error, as in what is built on
// lockers, and no panic, also if it is wrapped.
func TestNilLocker(t *testing.T) {
	const want = "swanlock: the locker is nil"
	for name, l := range map[string]swanlock.Locker{
		"nil":                    nil,
		"WithMinHold":            swanlock.WithMinHold(nil, time.Second),
		"WithMinHold for 0":      swanlock.WithMinHold(nil, 0),
		"Observe":                swanlock.Observe(nil, &recorder{}),
		"Observe, by nobody":     swanlock.Observe(nil),
		"Observe of WithMinHold": swanlock.Observe(swanlock.WithMinHold(nil, time.Second), &recorder{}),
	} {
		err := swanlock.Do(t.Context(), l, "t", func(context.Context, swanlock.DistributedLock) error { return nil })
		if err == nil || err.Error() != want {
			t.Errorf("%s: Do: got %v, want %q", name, err, want)
		}
		if l == nil {
			continue
		}
		if _, err := l.TryAcquire(t.Context(), "t"); err == nil || err.Error() != want {
			t.Errorf("%s: TryAcquire: got %v, want %q", name, err, want)
		}
	}
}

// TestNeither: a locker that returns neither a lock nor an error is an error of Do, and
// WithMinHold makes no lock of it.
func TestNeither(t *testing.T) {
	neither := func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return nil, nil }
	l := swanlock.WithMinHold(&mocks.Locker{TryAcquireFunc: neither, AcquireFunc: neither}, time.Second)
	if held, err := l.TryAcquire(t.Context(), "t"); held != nil || err != nil {
		t.Errorf("WithMinHold: got %v, %v", held, err)
	}
	err := swanlock.Do(t.Context(), l, "t", func(context.Context, swanlock.DistributedLock) error {
		t.Error("it was run")
		return nil
	})
	if err == nil {
		t.Error("Do: no error")
	}
}

func TestDoNotAcquired(t *testing.T) {
	l := memlock.New()
	held, err := l.Acquire(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errCause)
	never := do(func(context.Context) error { t.Error("ran without the lock"); return nil })
	if err := swanlock.Do(ctx, l, "t", never); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, errCause) {
		t.Errorf("got %v, want ErrNotAcquired and the cause", err)
	}
	if err := swanlock.Do(t.Context(), l, "t", never, swanlock.WithTTL(-1)); err == nil {
		t.Errorf("a bad option: got nil")
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
}

// The caller's context may end while the work goes on: the work is told, with
// the cause, and the lock is released nevertheless.
func TestDoContextEnds(t *testing.T) {
	l := memlock.New()
	ctx, cancel := context.WithCancelCause(t.Context())
	err := swanlock.Do(ctx, l, "t", do(func(ctx context.Context) error {
		cancel(errCause)
		<-ctx.Done()
		if got, want := context.Cause(ctx), errCause; !errors.Is(got, want) {
			t.Errorf("cause: got %v, want %v", got, want)
		}
		return nil
	}))
	if err != nil {
		t.Errorf("got %v, want nil", err)
	}
	wantFree(t, l)
}

func TestDoPanics(t *testing.T) {
	l := memlock.New()
	func() {
		defer func() {
			if got, want := recover(), any(errWork); got != want {
				t.Errorf("panic: got %v, want %v", got, want)
			}
		}()
		_ = swanlock.Do(t.Context(), l, "t", do(func(context.Context) error { panic(errWork) }))
		t.Errorf("Do returned from a panic")
	}()
	wantFree(t, l)
}

func TestDoGoexit(t *testing.T) {
	l := memlock.New()
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = swanlock.Do(t.Context(), l, "t", do(func(context.Context) error { runtime.Goexit(); return nil }))
		t.Errorf("Do returned from Goexit")
	}()
	<-ended
	wantFree(t, l)
}

func TestDoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name string
			opts []swanlock.Option
			lose func(*memlock.Locker)
			want []error
		}{
			{"taken away", nil, func(l *memlock.Locker) { l.Lose("t", errCause) }, []error{swanlock.ErrLost, errCause}},
			{"expired", []swanlock.Option{swanlock.WithTTL(time.Minute)}, func(*memlock.Locker) {}, []error{swanlock.ErrLost, swanlock.ErrExpired}},
		} {
			for _, returns := range []string{"nil", "its own error", "the cause"} {
				l := memlock.New()
				err := swanlock.Do(t.Context(), l, "t", do(func(ctx context.Context) error {
					tt.lose(l)
					<-ctx.Done()
					for _, want := range tt.want {
						if got := context.Cause(ctx); !errors.Is(got, want) {
							t.Errorf("%s: cause: got %v, want %v", tt.name, got, want)
						}
					}
					switch returns {
					case "its own error":
						return errWork
					case "the cause":
						return context.Cause(ctx)
					}
					return nil
				}), tt.opts...)
				want := tt.want
				if returns == "its own error" {
					want = append(want[:len(want):len(want)], errWork)
				}
				for _, want := range want {
					if !errors.Is(err, want) {
						t.Errorf("%s, the work returns %s: got %v, want it to match %v", tt.name, returns, err, want)
					}
				}
				if n := strings.Count(err.Error(), "lock lost"); n != 1 {
					t.Errorf("%s, the work returns %s: %q tells the loss %d times, want once", tt.name, returns, err, n)
				}
				wantFree(t, l)
			}
		}
	})
}

// A loss after the work is done, and before the release, is told as well.
func TestDoLossUnseen(t *testing.T) {
	l := memlock.New()
	err := swanlock.Do(t.Context(), l, "t", do(func(context.Context) error { l.Lose("t", nil); return nil }))
	if !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
}
