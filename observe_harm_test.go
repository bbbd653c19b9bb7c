package swanlock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

// A safeBuffer is a bytes.Buffer for several goroutines.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// quiet takes what is logged by default while t runs.
func quiet(t *testing.T) *safeBuffer {
	t.Helper()
	was, log := slog.Default(), &safeBuffer{}
	slog.SetDefault(slog.New(slog.NewTextHandler(log, nil)))
	t.Cleanup(func() { slog.SetDefault(was) })
	return log
}

// life acquires, refreshes and releases a lock, and reports what went wrong.
func life(l swanlock.Locker, target string) error {
	ctx := context.Background()
	held, err := l.TryAcquire(ctx, target)
	if err != nil {
		return err
	}
	return errors.Join(held.Refresh(ctx), held.Release(ctx))
}

// An observer that panics, or ends its goroutine, is logged; the lock and the
// other observers do not notice.
func TestObserverPanics(t *testing.T) {
	log := quiet(t)
	for name, harm := range map[string]func(){"panic": func() { panic("oh no") }, "nil panic": func() { panic(nil) }, "Goexit": runtime.Goexit} {
		synctest.Test(t, func(t *testing.T) {
			r := &recorder{}
			bad := &recorder{onBegin: func(swanlock.Op) { harm() }, onEnd: func(swanlock.Event) { harm() }}
			if err := life(swanlock.Observe(memlock.New(), bad, r), "t"); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			r.want(t, "try t acquired", "refresh t ok", "release t ok ended after 0s")
			bad.want(t, "try t acquired", "refresh t ok", "release t ok ended after 0s")
		})
	}
	if got := log.String(); !strings.Contains(got, "oh no") || !strings.Contains(got, "*swanlock_test.recorder") || !strings.Contains(got, "observe_harm_test.go") {
		t.Errorf("the log does not have the panic, the observer and the place:\n%s", got)
	}
}

// An observer that blocks, wherever it does, delays its first caller a little, and
// nobody after that. It is told of all when it goes on, in order.
func TestObserverBlocks(t *testing.T) {
	log := quiet(t)
	for _, at := range []swanlock.Op{swanlock.OpTryAcquire, swanlock.OpRefresh, swanlock.OpRelease} {
		for _, where := range []string{"Begin", "End"} {
			synctest.Test(t, func(t *testing.T) {
				goOn, once := make(chan struct{}), sync.Once{}
				block := func(op swanlock.Op) {
					if op == at {
						once.Do(func() { <-goOn })
					}
				}
				bad, r := &recorder{}, &recorder{}
				if where == "Begin" {
					bad.onBegin = block
				} else {
					bad.onEnd = func(e swanlock.Event) { block(e.Op) }
				}
				space := memlock.New()
				l := swanlock.Observe(space, bad, r)
				start := time.Now()
				for i := range 3 {
					if err := life(l, fmt.Sprint("t", i)); err != nil {
						t.Errorf("%v's %s: %v", at, where, err)
					}
				}
				if took := time.Since(start); took > 50*time.Millisecond {
					t.Errorf("%v's %s: got %v for three locks, want 50ms at most", at, where, took)
				}
				lost := mustAcquire(t, l)
				space.Lose("t", nil)
				<-lost.Done()
				want := []string{}
				for i := range 3 {
					for _, event := range []string{"try t%d acquired", "refresh t%d ok", "release t%d ok ended after"} {
						want = append(want, fmt.Sprintf(event, i))
					}
				}
				want = append(want, "acquire t acquired", "loss t lost ended after 0s")
				same := func(who string, got []string) {
					t.Helper()
					ok := len(got) == len(want)
					for i := 0; ok && i < len(got); i++ {
						ok = strings.HasPrefix(got[i], want[i])
					}
					if !ok {
						t.Errorf("%v's %s: %s: got %q, want %q", at, where, who, got, want)
					}
				}
				same("the other", r.told())
				close(goOn)
				synctest.Wait()
				if len(bad.begun) != 10 {
					t.Errorf("%v's %s: got %d calls of Begin, want 10, one for each call of a lock", at, where, len(bad.begun))
				}
				same("the one that blocked", bad.told())
				if err := life(l, "after"); err != nil {
					t.Error(err)
				}
				bad.want(t, "try after acquired", "refresh after ok", "release after ok ended after 0s")
			})
		}
	}
	if got := log.String(); !strings.Contains(got, "an observer blocks") {
		t.Errorf("nothing was logged of it:\n%s", got)
	}
}

// A prompt observer promises that it never blocks.
type prompt struct{ recorder }

func (*prompt) NeverBlocks() {}

// An observer that never blocks is called by the caller's own goroutine, and is told all
// that any other is.
func TestObserverNeverBlocks(t *testing.T) {
	log := quiet(t)
	caller := func() string {
		stack := make([]byte, 100)
		id, _, _ := strings.Cut(string(stack[:runtime.Stack(stack, false)]), "[")
		return id
	}
	mine, calls := caller(), 0
	look := func(what string) {
		if calls++; caller() != mine {
			t.Errorf("%s is called by another goroutine", what)
		}
	}
	p := &prompt{}
	p.onBegin = func(op swanlock.Op) { look(fmt.Sprint("Begin of ", op)) }
	p.onEnd = func(e swanlock.Event) { look(fmt.Sprint("End of ", e.Op)) }
	if err := life(swanlock.Observe(memlock.New(), p), "t"); err != nil {
		t.Error(err)
	}
	if calls != 6 {
		t.Errorf("got %d calls, want 6", calls)
	}
	p.onBegin, p.onEnd = func(swanlock.Op) { panic("begin") }, func(swanlock.Event) { panic("end") }
	if err := life(swanlock.Observe(memlock.New(), p), "t"); err != nil {
		t.Error(err)
	}
	if got := strings.Count(log.String(), "an observer panicked"); got != 6 {
		t.Errorf("%d panics were logged, want 6", got)
	}
}

// Two calls are late at once, one ends its goroutine, and one blocks again while
// it is told what it has missed: nothing is lost.
func TestObserverBlocksAgain(t *testing.T) {
	quiet(t)
	synctest.Test(t, func(t *testing.T) {
		n := 0
		var mu sync.Mutex
		bad := &recorder{onEnd: func(swanlock.Event) {
			mu.Lock()
			n++
			mine := n
			mu.Unlock()
			switch {
			case mine <= 2:
				time.Sleep(time.Duration(mine) * time.Minute)
			case mine == 5:
				time.Sleep(time.Hour)
				runtime.Goexit()
			}
		}}
		l := swanlock.Observe(memlock.New(), bad)
		var two sync.WaitGroup
		for i := range 2 {
			two.Go(func() {
				if err := life(l, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		two.Wait()
		for range 20 {
			time.Sleep(10 * time.Minute)
			if err := life(l, "t"); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(time.Hour)
		if got := len(bad.told()); got != 3*22 {
			t.Errorf("got %d events, want %d", got, 3*22)
		}
	})
}

// While one call is late, another that returns does not tell what has happened: the
// End of a call does not overtake its Begin.
func TestObserverKeepsOrder(t *testing.T) {
	quiet(t)
	synctest.Test(t, func(t *testing.T) {
		bad := &recorder{onBegin: func(op swanlock.Op) {
			time.Sleep(map[swanlock.Op]time.Duration{swanlock.OpRefresh: time.Hour, swanlock.OpTryAcquire: time.Minute}[op])
		}}
		l := swanlock.Observe(memlock.New(), bad)
		held := mustAcquire(t, l)
		var two sync.WaitGroup
		for _, f := range []func(){
			func() { held.Refresh(t.Context()) },
			func() { l.TryAcquire(t.Context(), "u") },
		} {
			two.Go(f)
		}
		two.Wait()
		time.Sleep(3 * time.Hour)
		synctest.Wait()
		for i, e := range bad.events {
			if got := bad.ctxs[i].Value(ctxKey("op")); got != e.Op {
				t.Errorf("the End of %v comes with the context %v, and not with Begin's", e.Op, got)
			}
		}
		if got := len(bad.told()); got != 3 {
			t.Errorf("got %d events, want 3", got)
		}
	})
}

// An observer that never returns costs a bounded amount of memory.
func TestObserverNeverReturns(t *testing.T) {
	log := quiet(t)
	synctest.Test(t, func(t *testing.T) {
		goOn := make(chan struct{})
		bad := &recorder{onEnd: func(swanlock.Event) { <-goOn }}
		l := swanlock.Observe(memlock.New(), bad)
		for range 5_000 {
			if err := life(l, "t"); err != nil {
				t.Fatal(err)
			}
		}
		close(goOn)
		if got, want := len(bad.told()), 1+10_000; got != want {
			t.Errorf("got %d events, want %d", got, want)
		}
		if err := life(l, "t"); err != nil {
			t.Fatal(err)
		}
		bad.want(t, "try t acquired", "refresh t ok", "release t ok ended after 0s")
	})
	if got := log.String(); !strings.Contains(got, "events=4999") {
		t.Errorf("the log does not say that 4999 events were dropped:\n%s", got)
	}
}

// A contextual observer returns a context of its own.
type contextual struct {
	recorder
	context func(context.Context) context.Context
}

func (c *contextual) Begin(ctx context.Context, op swanlock.Op, target string) context.Context {
	return c.context(c.recorder.Begin(ctx, op, target))
}

// An observer's context gives its values to the call, and nothing else.
func TestObserverContext(t *testing.T) {
	mine, yours := ctxKey("mine"), ctxKey("yours")
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for name, f := range map[string]func(context.Context) context.Context{
		"nil":           func(context.Context) context.Context { return nil },
		"ended":         func(context.Context) context.Context { return context.WithValue(ended, mine, "observer's") },
		"of the caller": func(ctx context.Context) context.Context { return context.WithValue(ctx, mine, "observer's") },
		"endless":       func(ctx context.Context) context.Context { return context.WithoutCancel(ctx) },
		"with a timeout": func(ctx context.Context) context.Context {
			ctx, cancel := context.WithTimeout(ctx, time.Millisecond)
			context.AfterFunc(ctx, cancel)
			return ctx
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			var seen context.Context
			space := memlock.New()
			l := swanlock.Observe(acquireFunc(func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
				seen = ctx
				return space.Acquire(ctx, target, opts...)
			}), &contextual{context: f})
			cause := errors.New("cause")
			ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), yours, "caller's"))
			held, err := l.Acquire(ctx, "t")
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if seen.Value(yours) != "caller's" {
				t.Errorf("%s: the call does not see the caller's value", name)
			}
			if got, want := seen.Value(mine), map[bool]any{true: "observer's", false: nil}[name == "ended" || name == "of the caller"]; got != want {
				t.Errorf("%s: the call sees the value %v of the observer, want %v", name, got, want)
			}
			time.AfterFunc(time.Minute, func() { cancel(cause) })
			if _, err := l.Acquire(ctx, "t"); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, cause) {
				t.Errorf("%s: got %v, want ErrNotAcquired and the cause", name, err)
			}
			if err := held.Release(ctx); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
}

// An acquireFunc is a Locker.
type acquireFunc func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error)

func (f acquireFunc) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f(ctx, target, opts...)
}

func (f acquireFunc) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f(ctx, target, opts...)
}

// A lateOne is an Observer that blocks once, and notes what it is told.
type lateOne struct {
	recorder
	targets []string
}

func (o *lateOne) Begin(ctx context.Context, op swanlock.Op, target string) context.Context {
	o.mu.Lock()
	o.targets = append(o.targets, target)
	o.mu.Unlock()
	return o.recorder.Begin(ctx, op, target)
}

// TestObserverIsToldTheTarget: Begin has the target of its call, also if it is told late.
func TestObserverIsToldTheTarget(t *testing.T) {
	quiet(t)
	synctest.Test(t, func(t *testing.T) {
		var once sync.Once
		bad := new(lateOne)
		bad.onBegin = func(swanlock.Op) { once.Do(func() { time.Sleep(time.Hour) }) }
		l := swanlock.Observe(memlock.New(), bad)
		for _, target := range []string{"a", "b"} {
			if err := life(l, target); err != nil {
				t.Error(err)
			}
		}
		time.Sleep(2 * time.Hour)
		synctest.Wait()
		if got := strings.Join(bad.targets, " "); got != "a a a b b b" {
			t.Errorf("got the targets %q", got)
		}
	})
}
