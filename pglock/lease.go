package pglock

import (
	"math"
	"strconv"
	"strings"
	"time"

	term "github.com/swanlake-io/swanlock/internal/lease"
)

// maxTTL is the longest idle_session_timeout: 2^31-1 ms, 24.8 days.
const maxTTL = math.MaxInt32 * time.Millisecond

// A lease is a TTL and the time when it began.
type lease struct {
	ttl   time.Duration // 0: none
	start time.Time     // before the statement was sent, so that the server's lease ends later
}

// left returns how much of the lease is left, by the clock that has gone further.
func (l lease) left(now time.Time) time.Duration {
	return term.Term{Length: l.ttl, Start: l.start}.Left(now)
}

// restart notes that a statement sent at the time given was answered, since when
// the lease begins anew.
func (l *lease) restart(sent time.Time) {
	if sent.After(l.start) {
		l.start = sent
	}
}

// firstEnd returns when the first of the leases ends, as seen at now. ok is
// false if none of them ends.
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

// milliseconds returns ttl in the unit of the server's settings. It is rounded
// up, since the server may end a session late, but never early.
func milliseconds(ttl time.Duration) int64 {
	return int64((ttl + time.Millisecond - 1) / time.Millisecond)
}

// A timeouts is a value for each of the two settings that end an idle session.
// "" leaves a setting as it is.
type timeouts struct{ idle, idleInTransaction string }

// of returns the values that make ttl the lease, for the settings that the
// server has: t has the values that it shows for them, and no idle before
// PostgreSQL 14.
func (t timeouts) of(ttl time.Duration) timeouts {
	ms := strconv.FormatInt(milliseconds(ttl), 10)
	if t.idle == "" {
		return timeouts{"", ms}
	}
	return timeouts{ms, ms}
}

// shortest returns the timeout that ends the session first. It is 0 if there is none.
func (t timeouts) shortest() time.Duration {
	idle, other := shown(t.idle), shown(t.idleInTransaction)
	if idle == 0 || other == 0 {
		return max(idle, other)
	}
	return min(idle, other)
}

// shown returns the time that the server shows as setting, such as 20min. It is 0 if
// setting is empty.
func shown(setting string) time.Duration {
	unit := time.Duration(1)
	if days, ok := strings.CutSuffix(setting, "d"); ok {
		setting, unit = days+"h", 24
	}
	d, _ := time.ParseDuration(strings.Replace(setting, "min", "m", 1))
	return unit * d
}

// leftLocked returns how long the lock lasts, by its own lease and its session's.
func (h *hold) leftLocked(now time.Time) time.Duration {
	return min(h.lease.left(now), h.led.lease.left(now))
}

// An alarm calls a function at the earliest of the times for which it was set. It
// is set lazily: what happens later may make it go off for nothing.
type alarm struct {
	timer *time.Timer
	at    time.Time // when the timer goes off
}

// set makes the alarm call f in d, if it would not do so sooner.
func (a *alarm) set(d time.Duration, f func()) {
	at := time.Now().Add(d)
	switch {
	case a.timer == nil:
		a.timer = time.AfterFunc(d, f)
	case at.Before(a.at):
		a.timer.Reset(d)
	default:
		return
	}
	a.at = at
}

// goesOff is called by what was set. It reports false if the alarm was stopped
// meanwhile.
func (a *alarm) goesOff() bool {
	set := a.timer != nil
	a.timer = nil
	return set
}

func (a *alarm) stop() {
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
}
