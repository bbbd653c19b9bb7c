package redislock

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestSubscriptionEnds: a subscription is kept while one waits, and for a while after
// that, and no longer.
func TestSubscriptionEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ended atomic.Int32
		w := newWakes(nil, "channel")
		w.end = func() { ended.Add(1) }
		is := func(when string, want int32) {
			t.Helper()
			synctest.Wait()
			if ended := ended.Load(); ended != want {
				t.Errorf("%s: ended %d times, want %d", when, ended, want)
			}
		}
		a, b := w.add("a"), w.add("b")
		w.remove("a")
		time.Sleep(2 * linger)
		is("b waits", 0)
		w.wake("b", "news")
		w.wake("a", "old news")
		if len(a) != 0 || len(b) != 1 || <-b != "news" {
			t.Errorf("%d messages for the one that has left, %d for the other", len(a), len(b))
		}
		w.remove("b")
		time.Sleep(linger / 2)
		w.add("c")
		w.stop() // A timer that has gone off already comes too late.
		time.Sleep(2 * linger)
		is("c waits", 0)
		w.remove("c")
		time.Sleep(linger - time.Millisecond)
		is("just after the last", 0)
		time.Sleep(time.Millisecond)
		is("a while after the last", 1)
	})
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
	holder string
}

func (v voter) EvalSha(_ context.Context, hash string, _ []string, _ ...any) *redis.Cmd {
	var answer any = int64(0)
	switch {
	case hash == acquireScript.Hash() && v.holder == "":
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

// TestNothingIsLeft: a lock that was taken, refreshed and released, and whose answers came
// at once, leaves nothing on the server: nothing of it can arrive any more.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	_, addrs := several(t, 1)
	l, client := lockerOn(t, addrs), dial(t, addrs[0])
	for range 100 { // The machine may be slow.
		held := testserver.Try(t, l, target)
		if err := held.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		testserver.Release(t, held)
		left, err := client.Keys(t.Context(), keyOf(target)+"*").Result()
		if err != nil {
			t.Fatal(err)
		}
		if len(left) == 0 {
			return
		}
	}
	t.Error("each lock leaves something")
}
