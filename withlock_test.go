package swanlock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

func mustAcquire(t *testing.T, l swanlock.Locker, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	held, err := l.Acquire(t.Context(), "t", opts...)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

func TestWithLockCause(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []swanlock.Option
		end  func(l *memlock.Locker, held swanlock.DistributedLock, cancelParent context.CancelCauseFunc)
		want []error
		not  error
	}{
		{"lost", nil, func(l *memlock.Locker, _ swanlock.DistributedLock, _ context.CancelCauseFunc) { l.Lose("t", errCause) },
			[]error{swanlock.ErrLost, errCause}, swanlock.ErrReleased},
		{"expired", []swanlock.Option{swanlock.WithTTL(time.Hour)}, func(*memlock.Locker, swanlock.DistributedLock, context.CancelCauseFunc) {},
			[]error{swanlock.ErrExpired, swanlock.ErrLost}, swanlock.ErrReleased},
		{"released", nil, func(_ *memlock.Locker, held swanlock.DistributedLock, _ context.CancelCauseFunc) {
			_ = held.Release(context.Background())
		}, []error{swanlock.ErrReleased}, swanlock.ErrLost},
		{"parent", nil, func(_ *memlock.Locker, _ swanlock.DistributedLock, cancel context.CancelCauseFunc) { cancel(errCause) },
			[]error{errCause}, swanlock.ErrLost},
		{"deadline", nil, func(*memlock.Locker, swanlock.DistributedLock, context.CancelCauseFunc) {},
			[]error{context.DeadlineExceeded}, swanlock.ErrLost},
	} {
		// The end comes while the context is in use, or is there before it.
		for _, before := range []bool{false, true} {
			t.Run(tt.name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					l := memlock.New()
					held := mustAcquire(t, l, tt.opts...)
					timed, stop := context.WithTimeout(t.Context(), 24*time.Hour)
					defer stop()
					parent, cancelParent := context.WithCancelCause(timed)
					defer cancelParent(nil)
					if before {
						tt.end(l, held, cancelParent)
						<-either(held.Done(), parent.Done())
					}
					ctx, cancel := swanlock.WithLock(parent, held)
					defer cancel()
					switch {
					case before && ctx.Err() == nil:
						t.Error("the lock has ended, or the parent, and the context has not")
					case !before && ctx.Err() != nil:
						t.Errorf("the context has ended at once: %v", context.Cause(ctx))
					}
					if !before {
						tt.end(l, held, cancelParent)
					}
					<-ctx.Done()
					for _, want := range tt.want {
						if got := context.Cause(ctx); !errors.Is(got, want) {
							t.Errorf("cause: got %v, want it to match %v", got, want)
						}
					}
					if got := context.Cause(ctx); errors.Is(got, tt.not) {
						t.Errorf("cause: got %v, want it not to match %v", got, tt.not)
					}
					_ = held.Release(t.Context())
				})
			})
		}
	}
}

func either(a, b <-chan struct{}) <-chan struct{} {
	c := make(chan struct{})
	go func() {
		defer close(c)
		select {
		case <-a:
		case <-b:
		}
	}()
	return c
}

// Cancel ends the context and leaves the lock held. A bubble whose goroutines do
// not end fails, as a package does whose tests leave any.
func TestWithLockCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		held := mustAcquire(t, l)
		type key struct{}
		ctx, cancel := swanlock.WithLock(context.WithValue(t.Context(), key{}, "value"), held)
		if got, want := ctx.Value(key{}), "value"; got != want {
			t.Errorf("value of the context: got %v, want %v", got, want)
		}
		for range 2 {
			cancel()
			if got, want := context.Cause(ctx), context.Canceled; got != want {
				t.Errorf("cause after cancel: got %v, want %v", got, want)
			}
		}
		if err := held.Err(); err != nil {
			t.Errorf("Err of the lock after cancel: got %v, want nil", err)
		}
		l.Lose("t", errCause)
		synctest.Wait()
		if got, want := context.Cause(ctx), context.Canceled; got != want {
			t.Errorf("cause after cancel and a loss: got %v, want %v", got, want)
		}
	})
}

// A slowLock takes its time to say why it ended, and counts the calls that
// asked.
type slowLock struct {
	swanlock.DistributedLock
	asked, told atomic.Int32
}

func (k *slowLock) Err() error {
	k.asked.Add(1)
	defer k.told.Add(1)
	time.Sleep(time.Minute)
	return k.DistributedLock.Err()
}

// Once cancel has returned, or the parent has ended, nothing looks at the lock.
func TestWithLockLeavesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name string
			end  func(l *memlock.Locker, cancel, cancelParent context.CancelFunc)
			want int32
		}{
			{"cancel, then a loss", func(l *memlock.Locker, cancel, _ context.CancelFunc) { cancel(); l.Lose("t", nil) }, 0},
			{"parent, then a loss", func(l *memlock.Locker, _, cancelParent context.CancelFunc) {
				cancelParent()
				synctest.Wait()
				l.Lose("t", nil)
			}, 0},
			{"a loss, then cancel", func(l *memlock.Locker, cancel, _ context.CancelFunc) {
				l.Lose("t", nil)
				time.Sleep(time.Second) // Err is being asked
				cancel()
			}, 1},
		} {
			l := memlock.New()
			held := &slowLock{DistributedLock: mustAcquire(t, l)}
			parent, cancelParent := context.WithCancel(t.Context())
			_, cancel := swanlock.WithLock(parent, held)
			tt.end(l, cancel, cancelParent)
			if asked, told := held.asked.Load(), held.told.Load(); asked != tt.want || told != tt.want {
				t.Errorf("%s: Err was asked %d times and told %d times, want %d", tt.name, asked, told, tt.want)
			}
			time.Sleep(time.Hour)
			if got := held.asked.Load(); got != tt.want {
				t.Errorf("%s: an hour later Err was asked %d times, want %d", tt.name, got, tt.want)
			}
			cancelParent()
			cancel()
		}
	})
}
