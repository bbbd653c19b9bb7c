package redislock

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestQueueGathers: while two senders wait for the server, calls gather, and then
// they travel together, in their order.
func TestQueueGathers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		batches, answer := make(chan []call, 10), make(chan struct{})
		q := newQueue(func(calls []call) { batches <- calls; <-answer }, 2)
		var want []string
		for i := range 7 {
			want = append(want, fmt.Sprint(i))
			q.send(call{keys: want[i:]})
			synctest.Wait()
		}
		close(answer)
		synctest.Wait()
		close(batches)
		var got []string
		var sizes []int
		for calls := range batches {
			sizes = append(sizes, len(calls))
			for _, c := range calls {
				got = append(got, c.keys[0])
			}
		}
		if fmt.Sprint(got) != fmt.Sprint(want) || fmt.Sprint(sizes) != "[1 1 5]" {
			t.Errorf("got calls %v in batches of %v, want %v in [1 1 5]", got, sizes, want)
		}
		time.Sleep(time.Minute) // The idle goroutines end.
	})
}

// TestQueueIsNotHeldUp: a call waits for slow, and no longer, for senders to which
// the server does not answer.
func TestQueueIsNotHeldUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sent, answer := make(chan time.Time, 10), make(chan struct{})
		q := newQueue(func([]call) { sent <- time.Now(); <-answer }, 2)
		time.Sleep(time.Minute)
		begun := time.Now()
		for range 3 {
			q.send(call{})
			synctest.Wait()
		}
		for i, want := range []time.Duration{0, 0, slow} {
			select {
			case at := <-sent:
				if got := at.Sub(begun); got != want {
					t.Errorf("call %d was sent after %v, want %v", i, got, want)
				}
			case <-time.After(time.Minute):
				t.Errorf("call %d is not sent", i)
			}
		}
		close(answer)
		time.Sleep(time.Minute)
	})
}

// hanging answers the script whose key is "hangs" when it is let go.
type hanging struct {
	redis.Scripter
	let chan struct{}
}

func (h hanging) EvalSha(ctx context.Context, _ string, keys []string, _ ...any) *redis.Cmd {
	if keys[0] == "hangs" {
		<-h.let
	}
	return redis.NewCmdResult(int64(1), nil)
}

// TestQueueWithoutPipeline: calls of a client that has no pipelines do not wait for one
// another, although they gather.
func TestQueueWithoutPipeline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := hanging{let: make(chan struct{})}
		s := newServer(client)
		var done []string
		var mu sync.Mutex
		var calls []call
		for _, key := range []string{"one", "hangs", "two"} {
			calls = append(calls, call{ctx: t.Context(), script: releaseScript, keys: []string{key}, done: func(any, error) {
				mu.Lock()
				defer mu.Unlock()
				done = append(done, key)
			}})
		}
		go s.queue.run(calls)
		synctest.Wait()
		mu.Lock()
		if len(done) != 2 {
			t.Errorf("while one hangs, %v are done, want the other two", done)
		}
		mu.Unlock()
		close(client.let)
		time.Sleep(time.Minute)
	})
}

// gate is a hook that keeps back what is sent one by one while it is shut, and
// counts what is sent together.
type gate struct {
	shut chan struct{}

	mu       sync.Mutex
	together int
}

func (g *gate) DialHook(next redis.DialHook) redis.DialHook { return next }
func (g *gate) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		<-g.shut
		return next(ctx, cmd)
	}
}
func (g *gate) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		g.mu.Lock()
		g.together += len(cmds)
		g.mu.Unlock()
		return next(ctx, cmds)
	}
}

// TestTogether: of tries that travel together each gets its own answer, also from a
// server that does not have the script.
func TestTogether(t *testing.T) {
	s := known(t, testserver.Redis(t))
	client := dial(t, s.Addr)
	l := lockerOn(t, []string{s.Addr})
	l.servers[0] = newServer(client)
	taken := testserver.Try(t, l, "taken")
	if err := client.ScriptFlush(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	g := &gate{shut: make(chan struct{})}
	client.AddHook(g)
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		target := "taken"
		if i >= n/3 {
			target = fmt.Sprint("free", i)
		}
		wg.Go(func() {
			held, err := l.TryAcquire(t.Context(), target, swanlock.WithTTL(10*time.Second))
			if free := target != "taken"; free != (err == nil) {
				t.Errorf("%s: %v", target, err)
			}
			if err == nil {
				testserver.Release(t, held)
			}
		})
	}
	eventually(t, "most travel together", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.together >= n/2
	})
	close(g.shut)
	wg.Wait()
	testserver.Release(t, taken)
}

// TestTogetherWithoutScripts: tries that travel together do so too when the server has
// lost the scripts. One after the other, the last of them would take longer than a try
// may.
func TestTogetherWithoutScripts(t *testing.T) {
	t.Parallel()
	s := known(t, testserver.Redis(t))
	client := dial(t, s.Addr)
	g := &gate{shut: make(chan struct{})}
	client.AddHook(g)
	client.AddHook(&distant{d: 200 * time.Millisecond})
	l, err := New([]redis.Scripter{client})
	if err != nil {
		t.Fatal(err)
	}
	const n = 40
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			held, err := l.TryAcquire(t.Context(), fmt.Sprint(i))
			if err != nil {
				t.Errorf("try %d: %v", i, err)
				return
			}
			testserver.Release(t, held)
		})
	}
	eventually(t, "most travel together", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.together >= n/2
	})
	close(g.shut)
	wg.Wait()
}
