package election_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

// TestEndsBeforeTheRelease: what lead has left running is told to stop before the lock
// is released, and so before another leads.
func TestEndsBeforeTheRelease(t *testing.T) {
	var left context.Context
	l := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
		return &mocks.DistributedLock{ReleaseFunc: func(context.Context) error {
			if left.Err() == nil {
				t.Error("its context lives as the lock is released")
			}
			return nil
		}}, nil
	}}
	if err := election.Run(t.Context(), l, "t", func(ctx context.Context) error { left = ctx; return election.ErrResign }); err != nil {
		t.Error(err)
	}
}

// TestLockOfNobody: a context that election did not make has no lock.
func TestLockOfNobody(t *testing.T) {
	if held, ok := election.Lock(t.Context()); ok || held != nil {
		t.Errorf("got %v, %t", held, ok)
	}
}

// TestLookBeforeTheTerm: what LookUp was asked before this process led, and answers when
// it does not any more, is old.
func TestLookBeforeTheTerm(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		looks := 0
		e := election.New(l, "t", named("me"), election.LookUp(time.Hour, func(context.Context, string) (string, error) {
			if looks++; looks == 1 {
				time.Sleep(time.Minute)
				return "old", nil
			}
			return "new", nil
		}))
		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		ended := make(chan error)
		go func() {
			ended <- e.Run(ctx, func(ctx context.Context) error { time.Sleep(time.Second); return nil })
		}()
		synctest.Wait()
		next := make(chan swanlock.DistributedLock)
		go func() { // It is the next in line.
			held, _ := l.Acquire(context.Background(), "t")
			next <- held
		}()
		held := <-next
		time.Sleep(2 * time.Minute)
		if got := e.Leader(); got != "" {
			t.Errorf("the leader is %q, by what was true before", got)
		}
		time.Sleep(time.Hour)
		if got := e.Leader(); got != "new" {
			t.Errorf("the leader is %q, want %q", got, "new")
		}
		stop()
		<-ended
		held.Release(context.Background())
	})
}
