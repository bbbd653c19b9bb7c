package swanlock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

// TestObserveTwoReleases: of two releases at once of a lock that was lost, the second
// gets nil, as any later call does. It is no release of a lock that was held.
func TestObserveTwoReleases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answer := make(chan struct{})
		first := make(chan struct{}, 1)
		first <- struct{}{}
		m := &mocks.DistributedLock{
			DoneFunc: func() <-chan struct{} { return nil },
			ErrFunc:  func() error { return swanlock.ErrExpired },
			ReleaseFunc: func(context.Context) error {
				select {
				case <-first:
					<-answer
					return swanlock.ErrExpired
				default:
					return nil
				}
			},
		}
		r := &recorder{}
		held := observed(t, m, r)
		go held.Release(t.Context())
		synctest.Wait()
		if err := held.Release(t.Context()); err != nil {
			t.Errorf("the second Release: %v", err)
		}
		close(answer)
		told := r.told()
		ended := slices.DeleteFunc(slices.Clone(told), func(e string) bool { return !strings.Contains(e, " ended") })
		if len(ended) != 1 || !strings.HasPrefix(ended[0], "loss t expired") {
			t.Errorf("got %q, want the end in the loss", told)
		}
	})
}

// TestObserveReleaseUnderWay: a second Release that returns while the first is under way
// does not end the lock, which may stay held.
func TestObserveReleaseUnderWay(t *testing.T) {
	for name, answer := range map[string]error{"it frees the lock": nil, "nothing could be sent": errors.New("busy")} {
		synctest.Test(t, func(t *testing.T) {
			var over error
			calls, answered := 0, make(chan struct{})
			m := &mocks.DistributedLock{
				DoneFunc: func() <-chan struct{} { return nil },
				ErrFunc:  func() error { return over },
				ReleaseFunc: func(context.Context) (err error) {
					if calls++; calls == 2 {
						return nil
					}
					if calls == 1 {
						<-answered
						err = answer
					}
					if err == nil {
						over = swanlock.ErrReleased
					}
					return err
				},
			}
			r := &recorder{}
			held := observed(t, m, r)
			go held.Release(t.Context())
			synctest.Wait()
			if err := held.Release(t.Context()); err != nil {
				t.Errorf("%s: the second Release: %v", name, err)
			}
			if told := r.told(); strings.Contains(strings.Join(told, "\n"), " ended") {
				t.Errorf("%s: the lock has ended while it was held: %q", name, told)
			}
			close(answered)
			synctest.Wait()
			if answer != nil {
				if err := held.Release(t.Context()); err != nil {
					t.Errorf("%s: the last Release: %v", name, err)
				}
			}
			if told := r.told(); strings.Count(strings.Join(told, "\n"), " ended") != 1 || !strings.Contains(told[len(told)-1], " ended") {
				t.Errorf("%s: got %q, want the end in the last", name, told)
			}
		})
	}
}

// TestObserveCauseIsNoLoss: a Refresh whose context has ended returns the cause of that,
// such as the loss of another lock. This one is held.
func TestObserveCauseIsNoLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &recorder{}
		held, err := swanlock.Observe(memlock.New(), r).TryAcquire(t.Context(), "a", swanlock.WithTTL(time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(fmt.Errorf("another lock: %w", swanlock.ErrLost))
		if err := held.Refresh(ctx); !errors.Is(err, context.Cause(ctx)) || held.Err() != nil {
			t.Errorf("Refresh: %v, and the lock is over: %v", err, held.Err())
		}
		if err := held.Release(ctx); err != nil {
			t.Error(err)
		}
		r.want(t, "try a acquired", "refresh a error", "release a ok ended after 0s")
	})
}

// TestObserveReleaseFails: a release that fails may end the lock all the same, as one that
// could only be asked for later, or may find it lost.
func TestObserveReleaseFails(t *testing.T) {
	for name, tt := range map[string]struct {
		over error
		want []string
	}{
		"released": {swanlock.ErrReleased, []string{"try t acquired", "release t error ended"}},
		"lost":     {swanlock.ErrExpired, []string{"try t acquired", "loss t expired ended", "release t error"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r, over, failed := &recorder{}, error(nil), errors.New("no answer")
			held := observed(t, &mocks.DistributedLock{
				InfoFunc: func() swanlock.Info { return swanlock.Info{AcquiredAt: time.Now()} },
				DoneFunc: func() <-chan struct{} { return nil },
				ErrFunc:  func() error { return over },
				ReleaseFunc: func(context.Context) error {
					over = tt.over
					return failed
				},
			}, r)
			if err := held.Release(t.Context()); err != failed {
				t.Errorf("%s: Release: %v", name, err)
			}
			for i := range tt.want {
				tt.want[i] = strings.Replace(tt.want[i], " ended", " ended after 0s", 1)
			}
			r.want(t, tt.want...)
		})
	}
}

// observed returns a lock of which m is what its locker granted.
func observed(t *testing.T, m swanlock.DistributedLock, r *recorder) swanlock.DistributedLock {
	t.Helper()
	held, err := swanlock.Observe(&mocks.Locker{
		TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return m, nil },
	}, r).TryAcquire(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	return held
}
