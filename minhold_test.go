package swanlock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

// TestMinHold: a lock that is released early is held until the time has come,
// past its TTL too, and is then free at once.
func TestMinHold(t *testing.T) {
	for name, opts := range map[string][]swanlock.Option{
		"no TTL": nil,
		"TTL":    {swanlock.WithTTL(time.Second)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				space := memlock.New()
				l := swanlock.WithMinHold(space, time.Minute)
				begin := time.Now()
				wctx, cancel := context.WithTimeout(t.Context(), time.Hour)
				defer cancel()
				next := make(chan time.Duration, 1)
				err := swanlock.Do(t.Context(), l, "t", func(context.Context, swanlock.DistributedLock) error {
					go func() {
						held, err := space.Acquire(wctx, "t")
						next <- time.Since(begin)
						if err == nil {
							_ = held.Release(wctx)
						}
					}()
					return nil
				}, opts...)
				if err != nil {
					t.Error(err)
				}
				if got := time.Since(begin); got != time.Minute {
					t.Errorf("Do took %v, want a minute", got)
				}
				if got := <-next; got != time.Minute {
					t.Errorf("the next holder had it after %v, want a minute", got)
				}
			})
		})
	}
}

// TestMinHoldWait: the time counts from the grant, not from the call.
func TestMinHoldWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		before := mustAcquire(t, space)
		time.AfterFunc(time.Hour, func() { _ = before.Release(context.Background()) })
		begin := time.Now()
		held := mustAcquire(t, swanlock.WithMinHold(space, time.Minute))
		if err := held.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if got := time.Since(begin); got != time.Hour+time.Minute {
			t.Errorf("it was released after %v, want an hour and a minute", got)
		}
	})
}

// TestMinHoldEndsSooner: the context of Release, that of Do, and a loss end the
// wait.
func TestMinHoldEndsSooner(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		l := swanlock.WithMinHold(space, time.Hour)
		for name, tt := range map[string]struct {
			release func(ctx context.Context) error
			want    error
		}{
			"release": {func(ctx context.Context) error { return mustAcquire(t, l).Release(ctx) }, nil},
			"do": {func(ctx context.Context) error {
				return swanlock.Do(ctx, l, "t", func(context.Context, swanlock.DistributedLock) error { return nil })
			}, nil},
			"loss": {func(context.Context) error {
				held := mustAcquire(t, l)
				time.AfterFunc(time.Minute, func() { space.Lose("t", errCause) })
				return held.Release(context.Background())
			}, errCause},
			"another release": {func(ctx context.Context) error {
				held := mustAcquire(t, l)
				go held.Release(ctx)
				return held.Release(context.Background())
			}, nil},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			begin := time.Now()
			err := tt.release(ctx)
			cancel()
			if !errors.Is(err, tt.want) {
				t.Errorf("%s: got %v, want %v", name, err, tt.want)
			}
			if got := time.Since(begin); got != time.Minute {
				t.Errorf("%s: it took %v, want a minute", name, got)
			}
			if err := mustAcquire(t, space).Release(t.Context()); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			synctest.Wait()
		}
	})
}

// TestMinHoldRefreshUnanswered: a refresh that gets no answer is left in time for
// another before the TTL ends.
func TestMinHoldRefreshUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		inner := mustAcquire(t, memlock.New(), swanlock.WithTTL(3*time.Second))
		n := 0
		m := &mocks.DistributedLock{InfoFunc: inner.Info, DoneFunc: inner.Done, ErrFunc: inner.Err, ReleaseFunc: inner.Release,
			RefreshFunc: func(ctx context.Context) error {
				if n++; n%2 == 1 {
					<-ctx.Done()
					return context.Cause(ctx)
				}
				return inner.Refresh(ctx)
			}}
		l := swanlock.WithMinHold(&mocks.Locker{
			TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return m, nil },
		}, time.Minute)
		held, err := l.TryAcquire(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		begin := time.Now()
		if err := held.Release(t.Context()); err != nil {
			t.Error(err)
		}
		if got := time.Since(begin); got < time.Minute || got > time.Minute+time.Second {
			t.Errorf("it was released after %v, want a minute", got)
		}
	})
}

// TestMinHoldConformance: it is a Locker like any other, and none at all without
// a time.
func TestMinHoldConformance(t *testing.T) {
	space := memlock.New()
	if got := swanlock.WithMinHold(space, 0); got != space {
		t.Errorf("got %T", got)
	}
	locktest.Run(t, func(*testing.T) swanlock.Locker { return swanlock.WithMinHold(space.Session(), time.Millisecond) },
		locktest.InBubble(), locktest.Fair(), locktest.ShortTTL(300*time.Millisecond),
		locktest.Lose(func(_ *testing.T, held swanlock.DistributedLock) { space.Lose(held.Info().Target, nil) }))
}
