package semaphore_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/semaphore"
)

// allFree fails if the line of t or one of its first two places is held.
func allFree(t *testing.T, space *memlock.Locker) {
	t.Helper()
	for _, target := range []string{"t/line", "t/place-0", "t/place-1"} {
		held, err := space.TryAcquire(bg, target)
		if err != nil {
			t.Errorf("%q is not free: %v", target, err)
			continue
		}
		must(t, held.Release(bg))
	}
}

// TestNeither: a locker that returns neither a lock nor an error, for a place that is
// tried or waited for or for the line, is an error, and what it granted is free again.
func TestNeither(t *testing.T) {
	for _, broken := range []string{"t/line", "t/place-1"} {
		for _, waits := range []bool{false, true} {
			synctest.Test(t, func(t *testing.T) {
				space := memlock.New()
				l := &mocks.Locker{
					TryAcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
						switch {
						case waits:
							return nil, swanlock.ErrNotAcquired
						case target == broken:
							return nil, nil
						}
						return space.TryAcquire(ctx, target, opts...)
					},
					AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
						if target == broken {
							return nil, nil
						}
						return space.Acquire(ctx, target, opts...)
					},
				}
				if held, err := semaphore.New(l, 2).Weighted(2).Acquire(bg, "t"); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
					t.Errorf("%s, waits: %t: got %v, %v, want an error of its own", broken, waits, held, err)
				}
				synctest.Wait()
				allFree(t, space)
			})
		}
	}
}

// TestPanicOfWait: a panic of one of the waits, which are made at the same time, is the
// caller's, who may recover it, and what the others were granted is free again.
func TestPanicOfWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		busy, err := semaphore.New(space, 2).Weighted(2).TryAcquire(bg, "t")
		must(t, err)
		l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			if target == "t/place-1" {
				time.Sleep(time.Second)
				panic("a bug")
			}
			return space.Acquire(ctx, target, opts...)
		}}
		func() {
			defer func() {
				if p := recover(); p != "a bug" {
					t.Errorf("it panicked with %v", p)
				}
			}()
			_, _ = semaphore.New(l, 2).Acquire(bg, "t")
		}()
		must(t, busy.Release(bg))
		synctest.Wait()
		allFree(t, space)
	})
}

// TestLineLost: one that has lost its place in line gives back the places that it had
// already, or it and the next in line would wait for each other for ever.
func TestLineLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		sem := semaphore.New(space, 2)
		var busy []swanlock.DistributedLock
		for range 2 {
			held, err := sem.TryAcquire(bg, "t")
			must(t, err)
			busy = append(busy, held)
		}
		ctx, cancel := context.WithTimeout(bg, time.Hour)
		defer cancel()
		got := make(chan error)
		acquire := func() {
			held, err := sem.Weighted(2).Acquire(ctx, "t", swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
			if err == nil {
				err = held.Release(bg)
			}
			got <- err
		}
		go acquire()
		synctest.Wait()
		space.Lose("t/line", nil)
		go acquire()
		synctest.Wait()
		for _, held := range busy {
			must(t, held.Release(bg))
			synctest.Wait()
		}
		for range 2 {
			if err := <-got; err != nil {
				t.Error(err)
			}
		}
		allFree(t, space)
	})
}

// TestLineOnSilentServer: Acquire returns when its context has ended, although the
// server does not answer as the place in line is given up.
func TestLineOnSilentServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		busy, err := space.TryAcquire(bg, "t/place-0")
		must(t, err)
		l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			if target != "t/line" {
				return space.Acquire(ctx, target, opts...)
			}
			return &mocks.DistributedLock{ReleaseFunc: func(ctx context.Context) error {
				select {
				case <-ctx.Done():
				case <-time.After(time.Hour):
				}
				return swanlock.ErrLost
			}}, nil
		}}
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := semaphore.New(l, 1).Acquire(ctx, "t"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want %v", err, context.DeadlineExceeded)
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %v, want 1s", took)
		}
		must(t, busy.Release(bg))
	})
}

// TestEndsWithTheAnswer: the error matches the cause of a context that ends as the
// locker has answered.
func TestEndsWithTheAnswer(t *testing.T) {
	cause := errors.New("the caller was stopped")
	for name, answer := range map[string]error{"held": swanlock.ErrNotAcquired, "failed": errors.New("away")} {
		for _, acquire := range []func(*semaphore.Semaphore, context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
			(*semaphore.Semaphore).TryAcquire, (*semaphore.Semaphore).Acquire,
		} {
			ctx, stop := context.WithCancelCause(t.Context())
			l := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
				stop(cause)
				return nil, answer
			}}
			if _, err := acquire(semaphore.New(l, 2), ctx, "t"); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) || !errors.Is(err, answer) {
				t.Errorf("%s: got %v, want ErrNotAcquired with the cause %q", name, err, cause)
			}
		}
	}
}

// TestShortLongestTTL: a locker whose longest TTL is under a second is waited for, too,
// as with redislock.WithMaxTTL.
func TestShortLongestTTL(t *testing.T) {
	space, longest := memlock.New(), 500*time.Millisecond
	l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
		o, err := swanlock.NewOptions(target, opts...)
		must(t, err)
		if o.TTL > longest {
			return nil, fmt.Errorf("the TTL %v is longer than %v: %w", o.TTL, longest, errors.ErrUnsupported)
		}
		return space.Acquire(ctx, target, opts...)
	}}
	held, err := semaphore.New(l, 2).Acquire(bg, "t", swanlock.WithTTL(longest))
	must(t, err)
	must(t, held.Release(bg))
	if _, err := semaphore.New(l, 2).Acquire(bg, "t", swanlock.WithTTL(time.Second)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a longer one: got %v, want %v", err, errors.ErrUnsupported)
	}
}

// TestLineLostAsItEnds: the place in line is lost, and the context ends while the places
// that were waited for are given up. The error tells of the context, and not of the loss.
func TestLineLostAsItEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space, cause := memlock.New(), errors.New("the caller was stopped")
		busy, err := space.TryAcquire(bg, "t/place-0")
		must(t, err)
		ctx, stop := context.WithCancelCause(bg)
		l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			held, err := space.Acquire(ctx, target, opts...)
			if target != "t/line" {
				stop(cause)
			}
			return held, err
		}}
		time.AfterFunc(time.Second, func() { space.Lose("t/line", nil) })
		_, err = semaphore.New(l, 1).Acquire(ctx, "t")
		if !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) || errors.Is(err, swanlock.ErrLost) {
			t.Errorf("got %v, want ErrNotAcquired with the cause %q", err, cause)
		}
		must(t, busy.Release(bg))
		allFree(t, space)
	})
}

// TestWaitEndsItsGoroutine: a locker that ends the goroutine of a wait, as t.FailNow in
// a mock does, ends that of the caller, and nothing is held.
func TestWaitEndsItsGoroutine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		busy, err := semaphore.New(space, 2).Weighted(2).TryAcquire(bg, "t")
		must(t, err)
		l := &mocks.Locker{TryAcquireFunc: space.TryAcquire, AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			if target != "t/line" {
				runtime.Goexit()
			}
			return space.Acquire(ctx, target, opts...)
		}}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			held, err := semaphore.New(l, 2).Acquire(bg, "t")
			t.Errorf("it returned %v, %v", held, err)
		}()
		<-ended
		must(t, busy.Release(bg))
		synctest.Wait()
		allFree(t, space)
	})
}
