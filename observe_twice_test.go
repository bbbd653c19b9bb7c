package swanlock_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/swanlake-io/swanlock"
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
		held, err := swanlock.Observe(&mocks.Locker{
			TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return m, nil },
		}, r).TryAcquire(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
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
