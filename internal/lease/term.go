package lease

import (
	"math"
	"math/rand/v2"
	"time"
)

// A Term is the time for which a server lends a lock. The zero value never
// ends.
type Term struct {
	Length time.Duration // 0: it never ends
	Start  time.Time     // before the request was sent, so that the server's term ends later
}

// Left returns how much of the term is left. It goes by the clock that has gone
// further: the monotonic clock stands still while a machine sleeps, and the
// wall clock may be set back.
func (t Term) Left(now time.Time) time.Duration {
	if t.Length == 0 {
		return math.MaxInt64
	}
	return t.Length - max(now.Sub(t.Start), now.Round(0).Sub(t.Start.Round(0)))
}

// Backoff returns how long to wait after try number n, which counts from 0: 10
// to 20 ms at first, 50 to 100 ms from the fourth on. It is random, so that
// callers that collided once do not collide again.
func Backoff(n int) time.Duration {
	d := min(10*time.Millisecond<<min(n, 3), 50*time.Millisecond)
	return d + rand.N(d)
}
