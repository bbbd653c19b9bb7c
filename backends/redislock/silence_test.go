package redislock

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// A distant is a hook of a client that is far from its server.
type distant struct {
	hold // for the other methods
	d    time.Duration
}

func (h distant) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		time.Sleep(h.d)
		return next(ctx, cmd)
	}
}

func (h distant) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		time.Sleep(h.d)
		return next(ctx, cmds)
	}
}

// A server that always answers, but late, has a vote like any other, also where it is
// the one that decides: another is down, or keeps a vote for somebody that has died.
func TestDistantServerDecides(t *testing.T) {
	t.Parallel()
	for name, spoil := range map[string]func(t *testing.T, s *testserver.Node){
		"down": func(t *testing.T, s *testserver.Node) { s.Kill() },
		"voted": func(t *testing.T, s *testserver.Node) {
			if err := dial(t, s.Addr).Set(t.Context(), keyOf(target), "x dead", time.Minute).Err(); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			servers, addrs := several(t, 3)
			far := dial(t, addrs[2])
			far.AddHook(&distant{d: 200 * time.Millisecond})
			l := lockerOn(t, addrs)
			l.servers[2] = newServer(far)
			spoil(t, servers[0])
			held := testserver.Try(t, l, target, swanlock.WithTTL(5*time.Second))
			if err := held.Refresh(t.Context()); err != nil {
				t.Errorf("Refresh: %v", err)
			}
			testserver.Release(t, held)
		})
	}
}

// A forgotten connection is one that the network has forgotten, when it was told to:
// what is sent does not arrive.
type forgotten struct {
	net.Conn
	next *atomic.Int32 // how many calls are to get no answer
	dead *atomic.Bool
}

func (c forgotten) Write(b []byte) (int, error) {
	if c.dead.Load() || c.next.Add(-1) >= 0 {
		c.dead.Store(true)
		return len(b), nil
	}
	return c.Conn.Write(b)
}

// A server whose connections were dead for a while is asked again, although calls of
// then still wait, and the client lets them wait for ever. One call in vain says even
// less if the server has answered another since.
func TestCallsHang(t *testing.T) {
	t.Parallel()
	for name, calls := range map[string]int32{"one": 1, "all": 1000} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, addrs := several(t, 3)
			var next [2]atomic.Int32
			l := lockerOn(t, addrs)
			for i := range next {
				client := redis.NewClient(&redis.Options{Addr: addrs[i], ReadTimeout: -1, MaxRetries: -1,
					Dialer: func(ctx context.Context, network, addr string) (net.Conn, error) {
						conn, err := new(net.Dialer).DialContext(ctx, network, addr)
						return forgotten{conn, &next[i], new(atomic.Bool)}, err
					}})
				defer client.Close()
				l.servers[i] = newServer(client)
			}
			testserver.Release(t, testserver.Try(t, l, target))
			for i := range next {
				eventually(t, "what was asked is answered", func() bool {
					l.servers[i].mu.Lock()
					defer l.servers[i].mu.Unlock()
					return l.servers[i].waiting == 0
				})
				next[i].Store(calls)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := l.TryAcquire(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("TryAcquire without the answers of two servers: got %v, want DeadlineExceeded", err)
			}
			for i := range next {
				next[i].Store(0)
			}
			time.Sleep(maxSilence + 100*time.Millisecond)
			testserver.Release(t, testserver.Try(t, l, target))
		})
	}
}

// TestSilent: an error of the client is no answer. While other calls are under way, a
// server that is silent is sent the next at times that double.
func TestSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newServer(voter{})
		for _, c := range []struct {
			after time.Duration // the step before
			end   error         // nil: a call begins
			want  error
		}{
			{}, {after: 500 * time.Millisecond},
			{after: 500 * time.Millisecond, end: errors.New("i/o timeout")},
			{after: 200 * time.Millisecond}, // 1.2 s of silence; the last was sent after 0.5 s
			{after: 100 * time.Millisecond, want: errSilent},
			{after: 1100 * time.Millisecond}, // 2.4 s
			{after: 100 * time.Millisecond, end: redisError("ERR an answer")},
			{},
		} {
			time.Sleep(c.after)
			if c.end != nil {
				s.end(c.end)
			} else if got := s.begin(false); got != c.want {
				t.Errorf("a call %v after the step before: got %v, want %v", c.after, got, c.want)
			}
		}
	})
}
