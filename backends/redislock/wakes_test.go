package redislock

import (
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
