package semaphore_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/semaphore"
)

var bg = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestConformance: a semaphore of one place is a lock.
func TestConformance(t *testing.T) {
	space := memlock.New()
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return semaphore.New(space.Session(), 1) },
		locktest.InBubble(), locktest.Fair(), locktest.ShortTTL(1200*time.Millisecond),
		locktest.WithoutShared("its places are what several holders share"), locktest.WithoutFence("its holders have no order"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			space.Lose(held.Info().Target+"/place-0", nil)
		}))
}

// TestPlaces: as many hold the target as there are places, and no more, whether
// they try or wait.
func TestPlaces(t *testing.T) {
	for _, n := range []int{1, 3} {
		synctest.Test(t, func(t *testing.T) {
			sem := semaphore.New(memlock.New(), n)
			var held []swanlock.DistributedLock
			for range n {
				l, err := sem.TryAcquire(bg, "t")
				must(t, err)
				if l.Info().Target != "t" {
					t.Errorf("target %q", l.Info().Target)
				}
				held = append(held, l)
			}
			if _, err := sem.TryAcquire(bg, "t"); !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("one more: %v", err)
			}
			ctx, cancel := context.WithTimeout(bg, time.Second)
			defer cancel()
			if _, err := sem.Acquire(ctx, "t"); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("one more that waits: %v", err)
			}
			got := make(chan swanlock.DistributedLock)
			go func() {
				l, err := sem.Acquire(bg, "t")
				if err != nil {
					t.Error(err)
				}
				got <- l
			}()
			synctest.Wait()
			must(t, held[n-1].Release(bg))
			held[n-1] = <-got
			for _, l := range held {
				must(t, l.Release(bg))
			}
			other, err := sem.TryAcquire(bg, "another target")
			must(t, err)
			must(t, other.Release(bg))
			synctest.Wait()
		})
	}
}

// TestWeights: an acquire of several places takes them all or none, also while
// others come and go, and does not starve.
func TestWeights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sem := semaphore.New(memlock.New(), 5)
		one, err := sem.TryAcquire(bg, "t")
		must(t, err)
		if _, err := sem.Weighted(5).TryAcquire(bg, "t"); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("five of four: %v", err)
		}
		four, err := sem.Weighted(4).TryAcquire(bg, "t")
		must(t, err)
		must(t, four.Release(bg))
		must(t, one.Release(bg))

		var inUse, most atomic.Int32
		var wg sync.WaitGroup
		for i := range 8 {
			weight := 1 + i%5
			wg.Go(func() {
				for range 50 {
					l, err := sem.Weighted(weight).Acquire(bg, "t", swanlock.WithTTL(time.Second))
					if err != nil {
						t.Error(err)
						return
					}
					for now := inUse.Add(int32(weight)); ; {
						old := most.Load()
						if now <= old || most.CompareAndSwap(old, now) {
							break
						}
					}
					time.Sleep(time.Duration(rand.IntN(900)) * time.Millisecond)
					inUse.Add(-int32(weight))
					if err := l.Release(bg); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if got := most.Load(); got != 5 {
			t.Errorf("%d places were in use at once, want 5", got)
		}
	})
}

// TestKeptInManyWaits: places that are held do not expire while more are waited for,
// in waits that are each shorter than the time between two refreshes.
func TestKeptInManyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sem := semaphore.New(memlock.New(), 5)
		for i := range 5 {
			busy, err := sem.TryAcquire(bg, "t")
			must(t, err)
			time.AfterFunc(time.Duration(i+1)*9*time.Second, func() { busy.Release(bg) })
		}
		begin := time.Now()
		held, err := sem.Weighted(5).Acquire(bg, "t", swanlock.WithTTL(30*time.Second))
		must(t, err)
		first := held.(interface {
			Parts() []swanlock.DistributedLock
		}).Parts()[0]
		if got := first.Info().AcquiredAt.Sub(begin); got != 9*time.Second {
			t.Errorf("the first place that became free was taken after %v, want 9s", got)
		}
		must(t, held.Release(bg))
	})
}

// A slow locker takes a while for each try, and calls after it, with how many there
// were.
type slow struct {
	swanlock.Locker
	takes time.Duration
	tries int
	after func(tries int)
}

func (l *slow) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	time.Sleep(l.takes)
	held, err := l.Locker.TryAcquire(ctx, target, opts...)
	if l.tries++; l.after != nil {
		l.after(l.tries)
	}
	return held, err
}

// TestSlowTries: places do not expire while more are tried, and what is returned
// without an error is held.
func TestSlowTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		sem := semaphore.New(&slow{Locker: space, takes: 400 * time.Millisecond}, 4).Weighted(4)
		for _, acquire := range []func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){sem.TryAcquire, sem.Acquire} {
			held, err := acquire(bg, "t", swanlock.WithTTL(time.Second))
			must(t, err)
			must(t, held.Release(bg))
		}

		loses := func(tries int) {
			if tries == 4 { // all places of the first round
				for _, place := range []string{"t/place-0", "t/place-1", "t/place-2", "t/place-3"} {
					space.Lose(place, nil)
				}
			}
		}
		if held, err := semaphore.New(&slow{Locker: space, after: loses}, 4).Weighted(4).TryAcquire(bg, "t"); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("TryAcquire of places that are lost at once: got %v, %v, want ErrNotAcquired", held, err)
		}
		held, err := semaphore.New(&slow{Locker: space, after: loses}, 4).Weighted(4).Acquire(bg, "t")
		must(t, err)
		must(t, held.Release(bg))
	})
}

// TestSlowLine: a place that expires while the place in line is given up is not
// returned as if it were held: Acquire begins anew.
func TestSlowLine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		takes := time.Minute // for the first release alone
		sem := semaphore.New(&mocks.Locker{
			TryAcquireFunc: space.TryAcquire,
			AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
				return &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { time.Sleep(takes); takes = 0; return nil }}, nil
			},
		}, 1)
		held, err := sem.Acquire(bg, "t", swanlock.WithTTL(time.Second))
		must(t, err)
		must(t, held.Release(bg))
	})
}

// TestDeployment: while processes disagree on the number, no more than the larger
// number hold the target.
func TestDeployment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		var inUse, most atomic.Int32
		var wg sync.WaitGroup
		for i := range 12 {
			sem := semaphore.New(l, 2+3*(i%2)) // 2 or 5
			wg.Go(func() {
				for range 30 {
					held, err := sem.Acquire(bg, "t")
					if err != nil {
						t.Error(err)
						return
					}
					now := inUse.Add(1)
					for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
					}
					time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
					inUse.Add(-1)
					if err := held.Release(bg); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if got := most.Load(); got > 5 || got < 3 {
			t.Errorf("%d held it at once, want 3 to 5", got)
		}
	})
}

// TestPlaceLost: a place is free when its holder has lost it, and the holder knows.
func TestPlaceLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sem := semaphore.New(memlock.New(), 2)
		held, err := sem.Weighted(2).Acquire(bg, "t", swanlock.WithTTL(time.Second))
		must(t, err)
		next, err := sem.Acquire(bg, "t")
		must(t, err)
		if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("Err: %v", err)
		}
		must(t, next.Release(bg))
		if err := held.Release(bg); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("Release: %v", err)
		}
		synctest.Wait()
	})
}

// TestTooMany: a waiter that is granted more places than it wants, at the same
// moment, gives back the rest.
func TestTooMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var held atomic.Int32
		grant := func() swanlock.DistributedLock {
			held.Add(1)
			return &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { held.Add(-1); return nil }, ErrFunc: func() error { return nil }}
		}
		free := make(chan struct{})
		sem := semaphore.New(&mocks.Locker{
			TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
				return nil, swanlock.ErrNotAcquired
			},
			AcquireFunc: func(_ context.Context, target string, _ ...swanlock.Option) (swanlock.DistributedLock, error) {
				if target != "t/line" {
					<-free
				}
				return grant(), nil
			},
		}, 3)
		time.AfterFunc(time.Second, func() { close(free) })
		l, err := sem.Acquire(bg, "t")
		must(t, err)
		synctest.Wait()
		if n := held.Load(); n != 1 {
			t.Errorf("%d locks are held, want 1", n)
		}
		must(t, l.Release(bg))
	})
}

// TestNoFence: the fence of a part is not that of the lock.
func TestNoFence(t *testing.T) {
	l := &mocks.Locker{TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
		return &mocks.DistributedLock{InfoFunc: func() swanlock.Info { return swanlock.Info{Target: "t", Owner: "me", Fence: 7} }}, nil
	}}
	held, err := semaphore.New(l, 2).TryAcquire(bg, "t")
	must(t, err)
	if got := held.Info(); got.Fence != 0 || got.Owner != "me" {
		t.Errorf("got %+v, want no fence", got)
	}
}

func TestBadInput(t *testing.T) {
	l := memlock.New()
	for name, sem := range map[string]*semaphore.Semaphore{
		"no places":         semaphore.New(l, 0),
		"negative":          semaphore.New(l, -1),
		"no locker":         semaphore.New(nil, 1),
		"too heavy":         semaphore.New(l, 2).Weighted(3),
		"a weight of zero":  semaphore.New(l, 2).Weighted(0),
		"an invalid target": semaphore.New(l, 2),
	} {
		target := map[bool]string{true: "a\x00b", false: "t"}[name == "an invalid target"]
		for _, acquire := range []func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){sem.TryAcquire, sem.Acquire} {
			if _, err := acquire(bg, target); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
}

// TestLineStays: if the place in line cannot be given up, which would stop all that
// come later, the acquire fails, and nothing else is held.
func TestLineStays(t *testing.T) {
	l, busy := memlock.New(), errors.New("busy")
	sem := semaphore.New(&mocks.Locker{
		TryAcquireFunc: l.TryAcquire,
		AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			return &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { return busy }, ErrFunc: func() error { return nil }}, nil
		},
	}, 2)
	if _, err := sem.Acquire(bg, "t"); !errors.Is(err, busy) {
		t.Errorf("got %v", err)
	}
	all, err := semaphore.New(l, 2).Weighted(2).TryAcquire(bg, "t")
	must(t, err)
	must(t, all.Release(bg))
}

// panics is a Locker with a bug: it panics at the second try.
type panics struct {
	swanlock.Locker
	tries *int
}

func (p panics) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	if *p.tries++; *p.tries == 2 {
		panic("a bug")
	}
	return p.Locker.TryAcquire(ctx, target, opts...)
}

// TestPanic: when a locker panics, its places are free again, and so is the line.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		for _, acquire := range []func(*semaphore.Semaphore, context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
			(*semaphore.Semaphore).TryAcquire, (*semaphore.Semaphore).Acquire,
		} {
			func() {
				defer func() { _ = recover() }()
				_, _ = acquire(semaphore.New(panics{space, new(int)}, 2).Weighted(2), t.Context(), "t", swanlock.WithTTL(time.Second))
			}()
			for _, target := range []string{"t/line", "t/place-0", "t/place-1"} {
				held, err := space.Session().TryAcquire(t.Context(), target)
				if err != nil {
					t.Error(err)
					continue
				}
				_ = held.Release(t.Context())
			}
		}
	})
}
