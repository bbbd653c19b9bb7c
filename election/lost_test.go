package election_test

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

// TestLostIsNoLeader: a process that has lost the lock, or given it up, is not the
// leader any more, also while its function that leads has not returned; it may look up
// who is then.
func TestLostIsNoLeader(t *testing.T) {
	for what, end := range map[string]func(space *memlock.Locker, held swanlock.DistributedLock){
		"lost":     func(space *memlock.Locker, _ swanlock.DistributedLock) { space.Lose("t", nil) },
		"released": func(_ *memlock.Locker, held swanlock.DistributedLock) { held.Release(bg) },
	} {
		synctest.Test(t, func(t *testing.T) {
			space := memlock.New()
			var seen []string
			var answer atomic.Value
			answer.Store("")
			e := election.New(space, "t", named("me"), election.OnLeader(func(owner string) { seen = append(seen, owner) }),
				election.LookUp(3*time.Second/2, func(context.Context, string) (string, error) { return answer.Load().(string), nil }))
			err := e.Run(bg, func(ctx context.Context) error {
				held, _ := election.Lock(ctx)
				end(space, held)
				<-ctx.Done()
				synctest.Wait()
				if got := e.Leader(); got != "" {
					t.Errorf("%s: the leader is %q, want none", what, got)
				}
				answer.Store("other")
				time.Sleep(2 * time.Second)
				if got := e.Leader(); got != "other" {
					t.Errorf("%s: the leader is %q, want the other", what, got)
				}
				return election.ErrResign
			})
			if err != nil {
				t.Errorf("%s: Run: %v", what, err)
			}
			if got := fmt.Sprintf("%q", seen); got != `["me" "" "other"]` {
				t.Errorf("%s: OnLeader was told %s", what, got)
			}
		})
	}
}

// TestOnLeaderPanicsAtALoss: the panic is that of Run, and the lock is free.
func TestOnLeaderPanicsAtALoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		func() {
			defer func() {
				if p := recover(); p != "a bug" {
					t.Errorf("it panicked with %v", p)
				}
			}()
			_ = election.Run(bg, space, "t", func(ctx context.Context) error {
				space.Lose("t", nil)
				<-ctx.Done()
				return nil
			}, election.OnLeader(func(owner string) {
				if owner == "" {
					panic("a bug")
				}
			}))
		}()
		held, err := space.TryAcquire(bg, "t")
		if err != nil {
			t.Fatal(err)
		}
		held.Release(bg)
	})
}

// TestReleasedLater: a lock that could not be released at the end of a term, because
// nothing could be sent, is released before the next campaign, which it would be in the
// way of.
func TestReleasedLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		session, busy, fails := memlock.New().Session(), errors.New("busy"), 3
		l := &mocks.Locker{AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			held, err := session.Acquire(ctx, target, opts...)
			if err != nil {
				return nil, err
			}
			return &mocks.DistributedLock{InfoFunc: held.Info, ErrFunc: held.Err, DoneFunc: held.Done, ReleaseFunc: func(ctx context.Context) error {
				if fails > 0 {
					fails--
					return busy
				}
				return held.Release(ctx)
			}}, nil
		}}
		ctx, cancel := context.WithTimeout(bg, time.Hour)
		defer cancel()
		terms := 0
		var told []error
		err := election.Run(ctx, l, "t", func(context.Context) error {
			if terms++; terms == 2 {
				return election.ErrResign
			}
			return nil
		}, election.OnError(func(err error) { told = append(told, err) }))
		if err != nil || terms != 2 {
			t.Errorf("Run: %v, after %d terms", err, terms)
		}
		for _, err := range told {
			if !errors.Is(err, busy) {
				t.Errorf("told %v, want %v", err, busy)
			}
		}
		if len(told) != 3 {
			t.Errorf("told %d errors, want 3", len(told))
		}
	})
}

// TestWithoutTTL: the options of the lock may say that it has no TTL.
func TestWithoutTTL(t *testing.T) {
	err := election.Run(bg, memlock.New(), "t", func(ctx context.Context) error {
		if held, _ := election.Lock(ctx); held.Info().TTL != 0 {
			t.Errorf("the TTL is %v, want none", held.Info().TTL)
		}
		return election.ErrResign
	}, election.WithLockOptions(swanlock.WithTTL(0)))
	if err != nil {
		t.Error(err)
	}
}

// TestFailsAtALoss: OnError is told of a loss, and of the error of the function that
// leads if that is another.
func TestFailsAtALoss(t *testing.T) {
	bug := errors.New("a bug")
	for _, fails := range []error{nil, bug, context.Canceled} {
		synctest.Test(t, func(t *testing.T) {
			space, terms := memlock.New(), 0
			var told []error
			err := election.Run(bg, space, "t", func(ctx context.Context) error {
				if terms++; terms == 2 {
					return election.ErrResign
				}
				space.Lose("t", nil)
				<-ctx.Done()
				return fails
			}, election.OnError(func(err error) { told = append(told, err) }))
			if err != nil || len(told) != 1 || !errors.Is(told[0], swanlock.ErrLost) || errors.Is(told[0], bug) != (fails == bug) || errors.Is(told[0], context.Canceled) {
				t.Errorf("%v: Run: %v, told %v", fails, err, told)
			}
		})
	}
}

// TestLookUpHangs: Run and Watch return although a LookUp does not when its context
// ends, such as a statement of lib/pq on a server that has fallen silent.
func TestLookUpHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resumes := make(chan struct{})
		e := election.New(memlock.New(), "t", election.LookUp(time.Second, func(context.Context, string) (string, error) {
			<-resumes
			return "", nil
		}))
		time.AfterFunc(time.Hour, func() { close(resumes) })
		ctx, cancel := context.WithTimeout(bg, time.Minute)
		defer cancel()
		begin := time.Now()
		if err := e.Run(ctx, leads); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Run: %v", err)
		}
		if err := e.Watch(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Watch: %v", err)
		}
		if took := time.Since(begin); took > time.Minute+5*time.Second {
			t.Errorf("they took %v, want little more than 1m", took)
		}
		<-resumes
	})
}

// TestLostAsItStops: the context of Run has ended, and the function that leads takes its
// time to stop. When the lock is lost meanwhile, this process is no leader any more.
func TestLostAsItStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		var seen []string
		e := election.New(space, "t", named("me"), election.OnLeader(func(owner string) { seen = append(seen, owner) }))
		ctx, stop := context.WithCancel(bg)
		err := e.Run(ctx, func(context.Context) error {
			stop()
			synctest.Wait()
			space.Lose("t", nil)
			synctest.Wait()
			if got := e.Leader(); got != "" {
				t.Errorf("the leader is %q, want none", got)
			}
			return nil
		})
		if got := fmt.Sprintf("%q", seen); !errors.Is(err, context.Canceled) || got != `["me" ""]` {
			t.Errorf("Run: %v; OnLeader was told %s", err, got)
		}
	})
}

// TestLostAsItStarts: a process that has lost the lock before OnStart has returned is not
// named as the leader, which another may be by then.
func TestLostAsItStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		var seen []string
		err := election.New(space, "t", named("me"), election.OnLeader(func(owner string) { seen = append(seen, owner) }),
			election.LookUp(time.Second, func(context.Context, string) (string, error) { return "other", nil }),
			election.OnStart(func(swanlock.DistributedLock) {
				space.Lose("t", nil)
				time.Sleep(time.Second / 2)
			})).Run(bg, func(ctx context.Context) error {
			<-ctx.Done()
			synctest.Wait()
			return election.ErrResign
		})
		if got := fmt.Sprintf("%q", seen); err != nil || got != `["other"]` {
			t.Errorf("Run: %v; OnLeader was told %s", err, got)
		}
	})
}
