package pglock

import (
	"math"
	"strconv"
	"time"
)

// maxTTL is the most that idle_session_timeout holds: 2^31-1 ms, 24.8 days.
const maxTTL = math.MaxInt32 * time.Millisecond

// A lease is a TTL and when it began.
type lease struct {
	ttl   time.Duration // 0: none
	start time.Time     // before the statement was sent, so that the server's ends later
}

// left is how much of the lease is left. It goes by whichever clock has gone
// further: the monotonic one stands still while a machine sleeps, the wall
// clock may be set back.
func (l lease) left(now time.Time) time.Duration {
	if l.ttl == 0 {
		return math.MaxInt64
	}
	return l.ttl - max(now.Sub(l.start), now.Round(0).Sub(l.start.Round(0)))
}

// firstEnd is when the first of the leases ends, as seen at now. ok is false if
// none does.
func firstEnd(now time.Time, leases ...lease) (end time.Time, ok bool) {
	left := time.Duration(math.MaxInt64)
	for _, l := range leases {
		left = min(left, l.left(now))
	}
	if left == math.MaxInt64 {
		return time.Time{}, false
	}
	return now.Add(left), true
}

// milliseconds writes ttl as the server's settings take it, rounded up: the
// server may be late, never early.
func milliseconds(ttl time.Duration) int64 {
	return int64((ttl + time.Millisecond - 1) / time.Millisecond)
}

// A timeouts is a value for each of the two settings that end an idle session.
// "" leaves a setting as it is.
type timeouts struct{ idle, idleInTransaction string }

// of is ttl for the settings that t, what the caller had, says there are.
func (t timeouts) of(ttl time.Duration) timeouts {
	ms := strconv.FormatInt(milliseconds(ttl), 10)
	if t.idle == "" {
		return timeouts{"", ms}
	}
	return timeouts{ms, ms}
}
