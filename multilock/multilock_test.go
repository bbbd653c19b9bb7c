package multilock_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/multilock"
)

var bg = context.Background()

// single is a swanlock.Locker that takes its one target with multilock.
type single struct{ l swanlock.Locker }

func (s single) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return multilock.TryAcquire(ctx, s.l, []string{target}, opts...)
}

func (s single) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return multilock.Acquire(ctx, s.l, []string{target}, opts...)
}

func TestConformance(t *testing.T) {
	space := memlock.New()
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return single{space.Session()} },
		locktest.InBubble(), locktest.Fair(), locktest.ShortTTL(300*time.Millisecond), locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
			space.Lose(held.Info().Target, nil)
		}))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// free fails if one of targets is held.
func free(t *testing.T, l swanlock.Locker, targets ...string) {
	t.Helper()
	for _, target := range targets {
		held, err := l.TryAcquire(bg, target)
		if err != nil {
			t.Errorf("%q is not free: %v", target, err)
			continue
		}
		must(t, held.Release(bg))
	}
}

// TestAllOrNothing: if one target is held, none is taken, and the error names it.
func TestAllOrNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		targets := []string{"a", "b", "c", "d"}
		for _, busy := range targets {
			held, err := l.TryAcquire(bg, busy, swanlock.WithOwner("the other"))
			must(t, err)
			_, err = multilock.TryAcquire(bg, l, targets)
			if !errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(err.Error(), fmt.Sprintf("multilock: %q", busy)) || !strings.Contains(err.Error(), "the other") {
				t.Errorf("got %v, want ErrNotAcquired that names %q and its holder", err, busy)
			}
			ctx, cancel := context.WithTimeout(bg, 20*time.Millisecond)
			_, err = multilock.Acquire(ctx, l, targets)
			cancel()
			if !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), fmt.Sprintf("%q", busy)) {
				t.Errorf("got %v, want ErrNotAcquired with the cause, which names %q", err, busy)
			}
			must(t, held.Release(bg))
			free(t, l, targets...)
		}
	})
}

// TestOneOfEach: two spellings of one target are locked once, and what the Lock
// says of itself is of all.
func TestOneOfEach(t *testing.T) {
	l := memlock.New()
	held, err := multilock.TryAcquire(bg, l, []string{"/b", "/a", "//a", "/b"}, swanlock.WithFence(), swanlock.WithTTL(time.Minute))
	must(t, err)
	parts := held.(*multilock.Lock).Parts()
	if len(parts) != 2 || parts[0].Info().Fence == 0 || parts[1].Info().Fence == 0 || held.Info().Fence != 0 {
		t.Errorf("parts: %d", len(parts))
	}
	if d, ok := held.Deadline(); !ok || time.Until(d) > time.Minute {
		t.Errorf("Deadline: %v, %t", d, ok)
	}
	if got := held.Info(); got.TTL != time.Minute || strings.Count(got.Target, ", ") != 1 || got.AcquiredAt.IsZero() {
		t.Errorf("Info: %+v", got)
	}
	must(t, held.Refresh(bg))
	must(t, held.Release(bg))
	must(t, held.Release(bg))
	if err := held.Err(); err != swanlock.ErrReleased {
		t.Errorf("Err: %v", err)
	}
	free(t, l, "/a", "/b")
}

// TestLoss of one part: Done and Err say so, by its name, and the others stay held
// until Release.
func TestLoss(t *testing.T) {
	l := memlock.New()
	cause := errors.New("taken")
	held, err := multilock.Acquire(bg, l, []string{"a", "b", "c"})
	must(t, err)
	done := held.Done()
	l.Lose("b", cause)
	<-done
	for what, err := range map[string]error{"Err": held.Err(), "Refresh": held.Refresh(bg)} {
		if !errors.Is(err, swanlock.ErrLost) || !errors.Is(err, cause) || !strings.Contains(err.Error(), `"b"`) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, target := range []string{"a", "c"} {
		if _, err := l.TryAcquire(bg, target); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("%q before Release: %v", target, err)
		}
	}
	if err := held.Release(bg); !errors.Is(err, swanlock.ErrLost) || !errors.Is(err, cause) {
		t.Errorf("Release: %v", err)
	}
	must(t, held.Release(bg))
	free(t, l, "a", "b", "c")
}

// TestReleaseOrder: the parts are released in reverse.
func TestReleaseOrder(t *testing.T) {
	var order []string
	l := &mocks.Locker{TryAcquireFunc: func(_ context.Context, target string, _ ...swanlock.Option) (swanlock.DistributedLock, error) {
		return &mocks.DistributedLock{
			InfoFunc:    func() swanlock.Info { return swanlock.Info{Target: target} },
			ReleaseFunc: func(context.Context) error { order = append(order, target); return nil },
			ErrFunc:     func() error { return nil },
		}, nil
	}}
	held, err := multilock.TryAcquire(bg, l, []string{"a", "b", "c", "d", "e"})
	must(t, err)
	must(t, held.Release(bg))
	slices.Reverse(order)
	if want := strings.Split(held.Info().Target, ", "); !slices.Equal(order, want) {
		t.Errorf("released in the order %v backwards, want %v", order, want)
	}
}

// TestTTLWhileWaiting: what is held already does not expire while another target
// is waited for, and all TTLs begin with the end of the wait.
func TestTTLWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		const ttl = 3 * time.Second
		targets := []string{"a", "b", "c"}
		slices.SortFunc(targets, func(a, b string) int { return int(swanlock.KeyOf(a)>>32) - int(swanlock.KeyOf(b)>>32) })
		last := targets[2]
		busy, err := l.TryAcquire(bg, last)
		must(t, err)
		time.AfterFunc(30*time.Second, func() {
			if _, err := l.TryAcquire(bg, targets[0]); !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("%q while %q is waited for: %v", targets[0], last, err)
			}
		})
		time.AfterFunc(time.Minute, func() { busy.Release(bg) })
		held, err := multilock.Acquire(bg, l, targets, swanlock.WithTTL(ttl))
		must(t, err)
		if d, _ := held.Deadline(); time.Until(d) < ttl-time.Millisecond {
			t.Errorf("the deadline is in %v, want %v", time.Until(d), ttl)
		}
		time.Sleep(ttl + time.Second)
		if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("after the TTL: %v", err)
		}
		if err := held.Release(bg); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("Release: %v", err)
		}
	})
}

// TestKeptInManyWaits: what is held does not expire while the rest is waited for in
// waits that are each shorter than the time between two refreshes, and others that
// wait for it do not get it.
func TestKeptInManyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		const ttl = 30 * time.Second
		targets := []string{"a", "b", "c", "d", "e", "f"}
		slices.SortFunc(targets, func(a, b string) int { return cmp.Compare(swanlock.KeyOf(a), swanlock.KeyOf(b)) })
		for i, target := range targets[1:] {
			busy, err := l.TryAcquire(bg, target)
			must(t, err)
			time.AfterFunc(time.Duration(i+1)*9*time.Second, func() { busy.Release(bg) })
		}
		time.AfterFunc(40*time.Second, func() {
			if other, err := l.TryAcquire(bg, targets[0]); err == nil {
				t.Errorf("%q was given to another while the rest was waited for", targets[0])
				other.Release(bg)
			}
		})
		begin := time.Now()
		held, err := multilock.Acquire(bg, l, targets, swanlock.WithTTL(ttl))
		must(t, err)
		if took := time.Since(begin); took != 45*time.Second {
			t.Errorf("it took %v, want 45s", took)
		}
		must(t, held.Release(bg))
	})
}

// TestLostWhileWaiting: a target that is lost while another is waited for is
// taken again.
func TestLostWhileWaiting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		targets := []string{"a", "b"}
		if swanlock.KeyOf("a") > swanlock.KeyOf("b") {
			slices.Reverse(targets)
		}
		busy, err := l.TryAcquire(bg, targets[1])
		must(t, err)
		time.AfterFunc(time.Second, func() { l.Lose(targets[0], nil) })
		time.AfterFunc(2*time.Second, func() { busy.Release(bg) })
		held, err := multilock.Acquire(bg, l, targets, swanlock.WithTTL(time.Hour))
		must(t, err)
		must(t, held.Err())
		must(t, held.Release(bg))
		free(t, l, targets...)
	})
}

// TestSlowTries: what is returned without an error is held, although one target was
// tried for longer than the TTL of the others.
func TestSlowTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		var slow atomic.Bool
		l := &mocks.Locker{TryAcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			if target == "a" && slow.CompareAndSwap(true, false) {
				time.Sleep(time.Minute)
			}
			return space.TryAcquire(ctx, target, opts...)
		}}
		slow.Store(true)
		if held, err := multilock.TryAcquire(bg, l, []string{"a", "b"}, swanlock.WithTTL(time.Second)); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("TryAcquire: got %v, %v, want ErrNotAcquired", held, err)
		}
		free(t, space, "a", "b")
		slow.Store(true)
		held, err := multilock.Acquire(bg, l, []string{"a", "b"}, swanlock.WithTTL(time.Second))
		must(t, err)
		must(t, held.Release(bg))
	})
}

func TestBadInput(t *testing.T) {
	l := memlock.New()
	for name, err := range map[string]error{
		"no targets":    second(multilock.Acquire(bg, l, nil)),
		"no locker":     second(multilock.TryAcquire(bg, nil, []string{"a"})),
		"empty target":  second(multilock.TryAcquire(bg, l, []string{"a", ""})),
		"a NUL byte":    second(multilock.Acquire(bg, l, []string{"a", "b\x00"})),
		"negative TTL":  second(multilock.TryAcquire(bg, l, []string{"a"}, swanlock.WithTTL(-1))),
		"ended context": second(multilock.TryAcquire(ended(), l, []string{"a", "b"})),
	} {
		if err == nil || errors.Is(err, swanlock.ErrNotAcquired) != (name == "ended context") {
			t.Errorf("%s: %v", name, err)
		}
	}
	free(t, l, "a", "b")
}

func second(_ swanlock.DistributedLock, err error) error { return err }

func ended() context.Context {
	ctx, cancel := context.WithCancel(bg)
	cancel()
	return ctx
}

// TestNoDeadlock: callers that want overlapping sets, in any order, all get them,
// and never two at once.
func TestNoDeadlock(t *testing.T) {
	l := memlock.New()
	ctx, cancel := context.WithTimeout(bg, 30*time.Second)
	defer cancel()
	names := []string{"a", "b", "c", "d", "e", "f"}
	var users [6]atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 200 {
				some := rand.Perm(len(names))[:1+rand.IntN(4)]
				var targets []string
				for _, i := range some {
					targets = append(targets, names[i])
				}
				held, err := multilock.Acquire(ctx, l, targets)
				if err != nil {
					t.Error(err)
					return
				}
				for _, i := range some {
					if users[i].Add(1) != 1 {
						t.Errorf("two hold %q", names[i])
					}
				}
				for _, i := range some {
					users[i].Add(-1)
				}
				if err := held.Release(ctx); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	free(t, l, names...)
}

// TestReleaseAgain: a part for which nothing could be sent is still held, and so the
// Lock is; Release may be called again.
func TestReleaseAgain(t *testing.T) {
	busy, held := errors.New("busy"), map[string]bool{"a": true, "b": true}
	fails := 1
	l := &mocks.Locker{TryAcquireFunc: func(_ context.Context, target string, _ ...swanlock.Option) (swanlock.DistributedLock, error) {
		return &mocks.DistributedLock{
			InfoFunc: func() swanlock.Info { return swanlock.Info{Target: target} },
			ReleaseFunc: func(context.Context) error {
				if target == "a" && fails > 0 {
					fails--
					return busy
				}
				held[target] = false
				return nil
			},
			ErrFunc: func() error {
				if held[target] {
					return nil
				}
				return swanlock.ErrReleased
			},
		}, nil
	}}
	lock, err := multilock.TryAcquire(bg, l, []string{"a", "b"})
	must(t, err)
	if err := lock.Release(bg); !errors.Is(err, busy) || !held["a"] {
		t.Errorf("Release: %v", err)
	}
	must(t, lock.Release(bg))
	must(t, lock.Release(bg))
	if held["a"] || held["b"] {
		t.Errorf("held: %v", held)
	}
}

// TestGiveBackAtOnce: what was taken in vain is free at once, although
// swanlock.WithMinHold keeps what is held.
func TestGiveBackAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		taken, err := space.TryAcquire(t.Context(), "b")
		if err != nil {
			t.Fatal(err)
		}
		defer taken.Release(t.Context())
		begin := time.Now()
		if _, err := multilock.TryAcquire(t.Context(), swanlock.WithMinHold(space, time.Hour), []string{"a", "b"}); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("got %v, want ErrNotAcquired", err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}
