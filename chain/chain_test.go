package chain_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/chain"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

var bg = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	a, b := memlock.New(), memlock.New()
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return chain.New(a.Session(), b.Session()) },
		locktest.InBubble(), locktest.Fair(), locktest.ShortTTL(300*time.Millisecond), locktest.WithoutFence("each of its lockers counts for itself"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			b.Lose(held.Info().Target, nil)
			a.Lose(held.Info().Target, nil) // which would stay until Release
		}))
}

// TestMoving: processes that lock in the old locker, in both, and in the new one
// exclude each other, as long as old ones and new ones do not meet.
func TestMoving(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		older, newer := memlock.New(), memlock.New()
		both := chain.New(older, newer)
		var holders, most atomic.Int32
		var wg sync.WaitGroup
		use := func(l swanlock.Locker, until time.Time) {
			wg.Go(func() {
				for time.Now().Before(until) {
					held, err := l.Acquire(bg, "t", swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh())
					if err != nil {
						t.Error(err)
						return
					}
					most.Store(max(most.Load(), holders.Add(1)))
					time.Sleep(time.Duration(rand.IntN(3000)) * time.Millisecond)
					holders.Add(-1)
					if err := held.Release(bg); err != nil {
						t.Error(err)
					}
				}
			})
		}
		now := time.Now()
		for range 4 {
			use(older, now.Add(time.Minute))
			use(both, now.Add(3*time.Minute))
		}
		time.Sleep(90 * time.Second) // no process is old any more
		for range 4 {
			use(newer, now.Add(4*time.Minute))
		}
		wg.Wait()
		if n := most.Load(); n != 1 {
			t.Errorf("%d held it at once", n)
		}
	})
}

// TestAllOrNothing: if one locker refuses, nothing is held in the others.
func TestAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lockers := []*memlock.Locker{memlock.New(), memlock.New(), memlock.New()}
		c := chain.New(lockers[0], lockers[1], lockers[2])
		for i, l := range lockers {
			busy, err := l.TryAcquire(bg, "t", swanlock.WithOwner("another"))
			must(t, err)
			if _, err := c.TryAcquire(bg, "t"); !errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(err.Error(), "another") ||
				!strings.Contains(err.Error(), fmt.Sprintf("locker %d:", i+1)) {
				t.Errorf("locker %d: %v", i, err)
			}
			ctx, cancel := context.WithTimeout(bg, time.Minute)
			if _, err := c.Acquire(ctx, "t", swanlock.WithTTL(time.Second)); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("locker %d: %v", i, err)
			}
			cancel()
			must(t, busy.Release(bg))
			for _, l := range lockers {
				held, err := l.TryAcquire(bg, "t")
				must(t, err)
				must(t, held.Release(bg))
			}
		}
	})
}

// TestBeginsAnew: a part that is lost while another is waited for is taken again, and
// one that is kept does not expire.
func TestBeginsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := memlock.New(), memlock.New()
		busy, err := second.TryAcquire(bg, "t")
		must(t, err)
		time.AfterFunc(time.Minute, func() {
			if _, err := first.TryAcquire(bg, "t"); !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("while it waits: %v", err)
			}
			first.Lose("t", nil)
		})
		time.AfterFunc(2*time.Minute, func() { busy.Release(bg) })
		held, err := chain.New(first, second).Acquire(bg, "t", swanlock.WithTTL(3*time.Second))
		must(t, err)
		must(t, held.Err())
		if d, ok := held.Deadline(); !ok || time.Until(d) != 3*time.Second {
			t.Errorf("deadline in %v", time.Until(d))
		}
		must(t, held.Release(bg))
	})
}

// TestKeptInManyWaits: a part does not expire while others are waited for, in waits
// that are each shorter than the time between two refreshes.
func TestKeptInManyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := memlock.New()
		lockers := []swanlock.Locker{first}
		for i := range 5 {
			l := memlock.New()
			busy, err := l.TryAcquire(bg, "t")
			must(t, err)
			time.AfterFunc(time.Duration(i+1)*9*time.Second, func() { busy.Release(bg) })
			lockers = append(lockers, l)
		}
		time.AfterFunc(40*time.Second, func() {
			if other, err := first.TryAcquire(bg, "t"); err == nil {
				t.Error("a part was given to another while the rest was waited for")
				other.Release(bg)
			}
		})
		held, err := chain.New(lockers...).Acquire(bg, "t", swanlock.WithTTL(30*time.Second))
		must(t, err)
		must(t, held.Release(bg))
	})
}

// TestLostWithoutTTL: the same without a TTL, if the loss is known.
func TestLostWithoutTTL(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := memlock.New(), memlock.New()
		busy, err := second.TryAcquire(bg, "t")
		must(t, err)
		time.AfterFunc(time.Minute, func() { first.Lose("t", nil) })
		time.AfterFunc(2*time.Minute, func() { busy.Release(bg) })
		held, err := chain.New(first, second).Acquire(bg, "t")
		must(t, err)
		must(t, held.Err())
		must(t, held.Release(bg))
	})
}

// TestRefreshFails: if the parts cannot be refreshed at the end, that is a failure of
// a server, and not that another holds the target, unless ctx has ended.
func TestRefreshFails(t *testing.T) {
	failed := errors.New("connection refused")
	first := memlock.New()
	for _, ends := range []bool{false, true} {
		ctx, cancel := context.WithCancel(bg)
		second := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
			return &mocks.DistributedLock{RefreshFunc: func(context.Context) error {
				if ends {
					cancel()
				}
				return errors.Join(failed, context.Cause(ctx))
			}}, nil
		}}
		_, err := chain.New(first, second).TryAcquire(ctx, "t", swanlock.WithTTL(time.Minute))
		if !errors.Is(err, failed) || errors.Is(err, swanlock.ErrNotAcquired) != ends {
			t.Errorf("ctx ends: %t: got %v", ends, err)
		}
		held, err := first.TryAcquire(bg, "t")
		must(t, err)
		must(t, held.Release(bg))
		cancel()
	}
}

// TestNoFence: the fence of a part is not that of the lock.
func TestNoFence(t *testing.T) {
	l := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
		return &mocks.DistributedLock{InfoFunc: func() swanlock.Info { return swanlock.Info{Target: "t", Owner: "me", Fence: 7} }}, nil
	}}
	held, err := chain.New(l, memlock.New()).TryAcquire(bg, "t")
	must(t, err)
	if got := held.Info(); got.Fence != 0 || got.Owner != "me" {
		t.Errorf("got %+v, want no fence", got)
	}
}

func TestBadInput(t *testing.T) {
	l := memlock.New()
	for want, c := range map[string]swanlock.Locker{"no lockers": chain.New(), "locker 2 is nil": chain.New(l, nil),
		"lockers 1 and 3 are the same": chain.New(l, memlock.New(), l)} {
		if _, err := c.TryAcquire(bg, "t"); err == nil || errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	// Lockers that cannot be compared may be the same one, or not.
	type plain struct {
		swanlock.Locker
		_ []func()
	}
	both, err := chain.New(plain{Locker: l}, plain{Locker: memlock.New()}).TryAcquire(bg, "t")
	must(t, err)
	must(t, both.Release(bg))
	lockers := []swanlock.Locker{l, memlock.New()}
	c := chain.New(lockers...)
	lockers[1] = nil // is the caller's business
	held, err := c.TryAcquire(bg, "t")
	must(t, err)
	must(t, held.Release(bg))
}

// panics is a Locker with a bug.
type panics struct{ swanlock.Locker }

func (panics) Acquire(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	panic("a bug")
}

// TestPanic: when a locker panics, what the others have granted is free again.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		func() {
			defer func() { _ = recover() }()
			_, _ = chain.New(space, panics{}).Acquire(bg, "t", swanlock.WithTTL(time.Second))
		}()
		held, err := space.Session().TryAcquire(bg, "t")
		must(t, err)
		must(t, held.Release(bg))
	})
}
