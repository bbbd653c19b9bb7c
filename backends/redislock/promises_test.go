package redislock

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
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
		if w.end != nil {
			t.Error("the next waiter would not subscribe")
		}
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
