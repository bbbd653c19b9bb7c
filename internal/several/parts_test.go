package several_test

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/several"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

// TestOfItsParts: the lock is as good as the worst of its parts.
func TestOfItsParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		part := func(target string, ttl time.Duration) swanlock.DistributedLock {
			held, err := l.TryAcquire(t.Context(), target, swanlock.WithTTL(ttl))
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			return held
		}
		begin := time.Now()
		parts := []swanlock.DistributedLock{part("a", 4*time.Minute), part("b", time.Minute), part("c", 0), part("d", time.Hour)}
		whole := several.New(swanlock.Info{Target: "all", AcquiredAt: begin}, parts)
		if d, ok := whole.Deadline(); !ok || !d.Equal(begin.Add(61*time.Second)) {
			t.Errorf("Deadline: %v after the begin, %t, want that of the second part", d.Sub(begin), ok)
		}
		if got := whole.Info().AcquiredAt; !got.Equal(begin.Add(3 * time.Second)) {
			t.Errorf("AcquiredAt: %v after the begin, want that of the last part", got.Sub(begin))
		}
		if got := whole.Targets(); !slices.Equal(got, []string{"all"}) {
			t.Errorf("Targets: %q", got)
		}
		whole.Targets()[0], whole.Parts()[0] = "another", nil // is the caller's business
		if whole.Targets()[0] != "all" || whole.Parts()[0] != parts[0] {
			t.Error("a caller has changed it")
		}
		if err := whole.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// TestAfterDone: a function is called once, with what Err returns, when a part is lost,
// when the lock is released, and at once if it is over; stop prevents that.
func TestAfterDone(t *testing.T) {
	for name, end := range map[string]func(l *memlock.Locker, whole *several.Lock) error{
		"lost": func(l *memlock.Locker, _ *several.Lock) error { l.Lose("b", nil); return swanlock.ErrLost },
		"released": func(_ *memlock.Locker, whole *several.Lock) error {
			_ = whole.Release(context.Background())
			return swanlock.ErrReleased
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := memlock.New()
			whole := several.New(swanlock.Info{}, []swanlock.DistributedLock{take(t, l, "a"), take(t, l, "b")})
			var told []error
			call := func(err error) { told = append(told, err) }
			whole.AfterDone(call)
			stop := whole.AfterDone(func(error) { t.Errorf("%s: called after stop", name) })
			if !stop() || stop() {
				t.Errorf("%s: stop reports %t again", name, stop())
			}
			want := end(l, whole)
			if synctest.Wait(); len(told) != 1 {
				t.Errorf("%s: told %v at its end", name, told)
			}
			late := whole.AfterDone(call)
			synctest.Wait()
			if len(told) != 2 || told[0] != whole.Err() || told[1] != whole.Err() || !errors.Is(told[0], want) || late() {
				t.Errorf("%s: told %v, want %v twice; stop reports %t", name, told, whole.Err(), late())
			}
			_ = whole.Release(t.Context())
		})
	}
}

// TestOneWatch: however often Done is asked for, one goroutine waits for the parts.
func TestOneWatch(t *testing.T) {
	whole := several.New(swanlock.Info{}, []swanlock.DistributedLock{take(t, memlock.New(), "a")})
	before := runtime.NumGoroutine()
	for range 100 {
		whole.Done()
	}
	if n := runtime.NumGoroutine() - before; n > 50 {
		t.Errorf("%d goroutines more", n)
	}
	_ = whole.Release(t.Context())
}

// TestLostAsItIsRefreshed: Refresh does not return nil if a part is lost meanwhile.
func TestLostAsItIsRefreshed(t *testing.T) {
	l := memlock.New()
	first := &mocks.DistributedLock{RefreshFunc: func(context.Context) error { l.Lose("b", nil); return nil }}
	second := take(t, l, "b")
	lost := &mocks.DistributedLock{RefreshFunc: func(context.Context) error { return nil }, ErrFunc: second.Err, InfoFunc: second.Info,
		DoneFunc: second.Done, ReleaseFunc: second.Release}
	whole := several.New(swanlock.Info{}, []swanlock.DistributedLock{first, lost})
	if err := whole.Refresh(t.Context()); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("got %v, want ErrLost", err)
	}
	_ = whole.Release(t.Context())
}

// TestKeeperRefreshes: the locks are refreshed when a third of the TTL has passed, and
// not at all if they have none, or are refreshed by their lockers.
func TestKeeperRefreshes(t *testing.T) {
	for name, c := range map[string]struct {
		options   swanlock.Options
		low, high int
	}{
		"a TTL":        {swanlock.Options{TTL: 30 * time.Second}, 3, 6},
		"auto-refresh": {swanlock.Options{TTL: 30 * time.Second, AutoRefresh: true}, 0, 0},
		"no TTL":       {swanlock.Options{}, 0, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			n, deadline := 0, time.Now().Add(c.options.TTL)
			k := several.NewKeeper(c.options)
			defer k.End(t.Context())
			k.Add(&mocks.DistributedLock{
				DeadlineFunc: func() (time.Time, bool) { return deadline, c.options.TTL > 0 },
				RefreshFunc:  func(context.Context) error { n++; deadline = time.Now().Add(c.options.TTL); return nil },
			})
			k.Keep()
			time.Sleep(time.Minute)
			synctest.Wait()
			if n < c.low || n > c.high {
				t.Errorf("%s: refreshed %d times in a minute, want %d to %d", name, n, c.low, c.high)
			}
		})
	}
}

// TestEach: more calls than are made at the same time are all made.
func TestEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const n = 1500
		var calls, now, most atomic.Int32
		several.Each(n, func(int) {
			calls.Add(1)
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(time.Second)
			now.Add(-1)
		})
		if calls.Load() != n || most.Load() > 512 {
			t.Errorf("%d calls of %d, %d at once", calls.Load(), n, most.Load())
		}
	})
}

// TestFailed: an error tells of the end of the context once, and what is refused is not
// that another holds the target.
func TestFailed(t *testing.T) {
	cause, away := errors.New("stopped"), errors.New("away")
	ended, stop := context.WithCancelCause(t.Context())
	stop(cause)
	told := errors.Join(swanlock.ErrNotAcquired, cause)
	for _, c := range []struct {
		ctx  context.Context
		err  error
		same bool
	}{
		{t.Context(), nil, true}, {ended, nil, true}, {t.Context(), away, true}, {ended, told, true},
		{ended, errors.ErrUnsupported, true}, {ended, away, false}, {ended, swanlock.ErrNotAcquired, false},
	} {
		got := several.Failed(c.ctx, c.err)
		if c.same && got != c.err {
			t.Errorf("%v: got %v, want the same", c.err, got)
		}
		if !c.same && (!errors.Is(got, cause) || !errors.Is(got, swanlock.ErrNotAcquired) || !errors.Is(got, c.err)) {
			t.Errorf("%v: got %v, want ErrNotAcquired and %v", c.err, got, cause)
		}
	}
}
