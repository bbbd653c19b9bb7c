package redislock

import (
	"context"
	"errors"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// A forgetting is a hook of a client whose server forgets the lock just before the first
// refresh.
type forgetting struct {
	server *redis.Client
	once   atomic.Bool
}

func (f *forgetting) DialHook(next redis.DialHook) redis.DialHook { return next }
func (f *forgetting) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}
func (f *forgetting) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if args := cmd.Args(); len(args) > 1 && args[1] == refreshScript.Hash() && f.once.CompareAndSwap(false, true) {
			f.server.Del(ctx, keyOf(target))
		}
		return next(ctx, cmd)
	}
}

// A lock that servers lose before they have agreed on its fence was never acquired: the
// votes are asked for again, and the error is not ErrLost.
func TestLostBeforeAgreed(t *testing.T) {
	_, addrs := several(t, 3)
	var clients []redis.Scripter
	var hooks []*forgetting
	for i, addr := range addrs {
		plain, client := dial(t, addr), dial(t, addr)
		// Each has seen another fence.
		seen := strconv.FormatInt(time.Now().Add(time.Hour).UnixMicro()+int64(i), 10)
		if err := plain.Set(t.Context(), keyOf(target)+":fence", seen, 0).Err(); err != nil {
			t.Fatal(err)
		}
		hook := &forgetting{server: plain}
		client.AddHook(hook)
		clients, hooks = append(clients, client), append(hooks, hook)
	}
	l, err := New(clients)
	if err != nil {
		t.Fatal(err)
	}
	held, err := l.Acquire(t.Context(), target, swanlock.WithFence())
	if err != nil {
		t.Fatal(err)
	}
	if !hooks[0].once.Load() {
		t.Error("the servers had agreed at once")
	}
	testserver.Release(t, held)
}

// TestTally: servers are asked until the others' answers cannot matter any more.
func TestTally(t *testing.T) {
	held, not, fails := answer{value: int64(1)}, answer{value: int64(0)}, answer{err: errors.New("away")}
	for name, c := range map[string]struct {
		answers    []answer
		decided    int // by which answer, from 1
		held, gone bool
	}{
		"a quorum":           {[]answer{held, not, held, fails, held}, 5, true, false},
		"at once":            {[]answer{held, held, held}, 3, true, false},
		"none can have":      {[]answer{not, held, not, not}, 4, false, true},
		"too few can answer": {[]answer{fails, held, fails, fails}, 4, false, false},
	} {
		tally, decided := tally{servers: 5}, 0
		for i, a := range c.answers {
			if tally.count(a) && decided == 0 {
				decided = i + 1
			}
		}
		if decided != c.decided || tally.isHeld() != c.held || tally.isNotHeld() != c.gone {
			t.Errorf("%s: decided by answer %d, held: %t, not held: %t", name, decided, tally.isHeld(), tally.isNotHeld())
		}
	}
}

// A voter is a server that has given its vote to the holder that it names, or gives it to
// everybody who asks.
type voter struct {
	redis.Scripter
	holder    string
	takes     time.Duration // to give a vote
	tombstone *any          // what a release asks for; it may be nil
}

func (v voter) EvalSha(_ context.Context, hash string, _ []string, args ...any) *redis.Cmd {
	var answer any = int64(1)
	switch {
	case hash == releaseScript.Hash() && v.tombstone != nil:
		*v.tombstone = args[3]
	case hash == acquireScript.Hash() && v.holder == "":
		time.Sleep(v.takes)
		answer = []any{"granted", "0"}
	case hash == acquireScript.Hash():
		answer = []any{"held", v.holder, int64(1000)}
	}
	return redis.NewCmdResult(answer, nil)
}

// TestSplitForLong: a try votes again for five seconds while the votes are split. Its
// error is not that the lock is held elsewhere: nobody has it.
func TestSplitForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, err := New([]redis.Scripter{voter{holder: "x one"}, voter{holder: "y two"}, voter{}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		begun := time.Now()
		if _, err := l.TryAcquire(ctx, target); !errors.Is(err, errSplit) || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("got %v, want %v", err, errSplit)
		}
		if took := time.Since(begun); took < patience || took > patience+200*time.Millisecond {
			t.Errorf("it took %v, want %v", took, patience)
		}
		time.Sleep(2 * idle) // for goroutines that wait for another call
	})
}

// TestTombstone: the release of a lock leaves a tombstone on the server if a request for
// the lock may arrive once more, and not otherwise.
func TestTombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for took, want := range map[time.Duration]string{0: "0", unrepeated: ms(serverLease(untold))} {
			var tombstone any
			l, err := New([]redis.Scripter{voter{takes: took, tombstone: &tombstone}})
			if err != nil {
				t.Fatal(err)
			}
			testserver.Release(t, testserver.Try(t, l, target))
			if tombstone != want {
				t.Errorf("an answer after %v: got %v ms, want %v", took, tombstone, want)
			}
		}
		time.Sleep(2 * idle)
	})
}
