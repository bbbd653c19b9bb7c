package pglock

import (
	"math"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// ForgetLeaseless makes the warning of a server without idle_session_timeout
// due again: it is given once in a process.
func ForgetLeaseless() { leaseless = sync.Once{} }

// advance moves the two clocks that a time was read from, each on its own, as
// when a machine sleeps or its wall clock is set.
func advance(t *testing.T, at time.Time, monotonic, wall time.Duration) time.Time {
	t.Helper()
	at = at.Add(wall)
	reading := (*struct { // a time.Time
		wall uint64
		ext  int64 // the monotonic clock
		loc  *time.Location
	})(unsafe.Pointer(&at))
	before := at
	reading.ext += int64(monotonic - wall)
	if got := at.Sub(before); got != monotonic-wall {
		t.Fatalf("a time.Time is made otherwise: moved by %v, not %v", got, monotonic-wall)
	}
	return at
}

// A holder that thinks too long that it holds the lock is what a lease must
// prevent, so the clock that has gone further counts.
func TestLeaseGoesByBothClocks(t *testing.T) {
	const ttl = 10 * time.Second
	for name, c := range map[string]struct{ monotonic, wall, left time.Duration }{
		"both run":                {3 * time.Second, 3 * time.Second, 7 * time.Second},
		"the machine slept":       {time.Second, time.Hour, ttl - time.Hour},
		"the wall clock set back": {12 * time.Second, -time.Hour, -2 * time.Second},
		"the wall clock set on":   {3 * time.Second, 11 * time.Second, -time.Second},
		"just in time":            {10*time.Second - 1, 0, 1},
		"just over":               {0, 10 * time.Second, 0},
	} {
		start := time.Now()
		l := lease{ttl, start}
		if got := l.left(advance(t, start, c.monotonic, c.wall)); got != c.left {
			t.Errorf("%s: %v left, want %v", name, got, c.left)
		}
	}
}

func TestLeaseWithoutTTLNeverEnds(t *testing.T) {
	if got := (lease{start: time.Now()}).left(time.Now().Add(maxTTL)); got != math.MaxInt64 {
		t.Errorf("%v left", got)
	}
}

// The server's end must not come before the holder's.
func TestMillisecondsRoundUp(t *testing.T) {
	for ttl, want := range map[time.Duration]int64{
		time.Millisecond:                          1,
		time.Millisecond + 1:                      2,
		1500 * time.Microsecond:                   2,
		2*time.Millisecond - 1:                    2,
		1500 * time.Millisecond:                   1500,
		maxTTL:                                    math.MaxInt32,
		maxTTL - time.Millisecond + 1:             math.MaxInt32,
		24 * time.Hour:                            86_400_000,
		time.Second + time.Nanosecond:             1001,
		time.Second - time.Nanosecond:             1000,
		time.Duration(0):                          0,
		10*time.Second + 999*time.Microsecond + 1: 10001,
	} {
		if got := milliseconds(ttl); got != want {
			t.Errorf("%v: %d ms, want %d", ttl, got, want)
		}
	}
}

func TestTimeoutsLeaveOutWhatTheServerLacks(t *testing.T) {
	for _, c := range []struct{ had, want timeouts }{
		{timeouts{"0", "0"}, timeouts{"1500", "1500"}},
		{timeouts{"10min", "1min"}, timeouts{"1500", "1500"}},
		{timeouts{"", "0"}, timeouts{"", "1500"}},
	} {
		if got := c.had.of(1500 * time.Millisecond); got != c.want {
			t.Errorf("%+v: %+v, want %+v", c.had, got, c.want)
		}
	}
}
