package pglock

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/swanlake-io/swanlock"
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

// The server ends a session at the instant at which its lease is over, so the
// holder has ended by then.
func TestLastInstant(t *testing.T) {
	start := time.Now()
	for name, leases := range map[string][2]time.Duration{"its own": {time.Second, 0}, "the session's": {time.Hour, time.Second}} {
		led := &ledger{lease: lease{leases[1], start}}
		h := &hold{led: led, done: make(chan struct{}), lease: lease{leases[0], start}}
		if h.expireLocked(start.Add(time.Second - 1)); h.err != nil {
			t.Errorf("%s: just before the end: got %v, want nil", name, h.err)
		}
		if h.expireLocked(start.Add(time.Second)); h.err != swanlock.ErrExpired {
			t.Errorf("%s: at the end: got %v, want ErrExpired", name, h.err)
		}
	}
}

// Err and Release look at the clocks themselves: on a machine that slept the
// timer is late.
func TestClocksWithoutATimer(t *testing.T) {
	for name, call := range map[string]func(*hold) error{
		"Err":     (*hold).over,
		"Release": func(h *hold) error { return h.release(context.Background()) },
	} {
		h := &hold{led: &ledger{}, done: make(chan struct{}), lease: lease{time.Second, time.Now().Add(-time.Hour)}}
		if err := call(h); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("%s: got %v, want ErrExpired", name, err)
		}
	}
}

// A statement that was sent before another says nothing new.
func TestTouchGoesForward(t *testing.T) {
	led, now := &ledger{}, time.Now()
	led.touch(now)
	led.touch(now.Add(-time.Second))
	if got := led.lease.start; got != now {
		t.Errorf("the lease starts %v, want %v", got, now)
	}
}

// A lock whose key was taken again is not there any more.
func TestLedgerKnowsItsLocks(t *testing.T) {
	old, next := &hold{id: lockID{key: 1}}, &hold{id: lockID{key: 1}}
	led := &ledger{books: books{locks: map[lockID]*hold{next.id: next}}}
	if led.contains(old) || !led.contains(next) {
		t.Errorf("has the old one: %v, the next: %v; want false, true", led.contains(old), led.contains(next))
	}
}

// The deadline goes by the lease that ends first, and by the clock that has gone
// further.
func TestFirstEndOfLeases(t *testing.T) {
	start := time.Now()
	none, short, long := lease{start: start}, lease{10 * time.Second, start}, lease{time.Minute, start}
	for _, tt := range []struct {
		name            string
		leases          []lease
		monotonic, wall time.Duration
		left            time.Duration // 0: for ever
	}{
		{"no leases", nil, 0, 0, 0},
		{"none ends", []lease{none, none}, time.Hour, time.Hour, 0},
		{"its own", []lease{short, none}, 3 * time.Second, 3 * time.Second, 7 * time.Second},
		{"the session's", []lease{none, short}, 3 * time.Second, 3 * time.Second, 7 * time.Second},
		{"the session's is sooner", []lease{long, short}, 0, 0, 10 * time.Second},
		{"its own is sooner", []lease{short, long}, 0, 0, 10 * time.Second},
		{"the machine slept", []lease{short}, time.Second, 4 * time.Second, 6 * time.Second},
		{"the wall clock set back", []lease{short}, 4 * time.Second, -time.Hour, 6 * time.Second},
		{"over", []lease{short}, 12 * time.Second, 12 * time.Second, -2 * time.Second},
	} {
		now := advance(t, start, tt.monotonic, tt.wall)
		end, ok := firstEnd(now, tt.leases...)
		if ok != (tt.left != 0) || ok && end.Sub(now) != tt.left {
			t.Errorf("%s: got %v from now, %t; want %v", tt.name, end.Sub(now), ok, tt.left)
		}
	}
}
