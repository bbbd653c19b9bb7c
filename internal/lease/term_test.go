package lease_test

import (
	"testing"
	"time"
	"unsafe"

	"github.com/swanlake-io/swanlock/internal/lease"
)

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

// TestTwoClocks: a holder that thinks too long that it holds the lock is what a
// term must prevent, so the clock that has gone further counts.
func TestTwoClocks(t *testing.T) {
	for name, c := range map[string]struct{ monotonic, wall, left time.Duration }{
		"both run":                {3 * time.Second, 3 * time.Second, ttl - 3*time.Second},
		"the machine slept":       {time.Second, time.Hour, ttl - time.Hour},
		"the wall clock set back": {ttl + time.Second, -time.Hour, -time.Second},
		"just in time":            {ttl - time.Nanosecond, 0, time.Nanosecond},
		"just over":               {0, ttl, 0},
	} {
		start := time.Now()
		if got := (lease.Term{Length: ttl, Start: start}).Left(advance(t, start, c.monotonic, c.wall)); got != c.left {
			t.Errorf("%s: %v left, want %v", name, got, c.left)
		}
	}
	if got := (lease.Term{}).Left(time.Now()); got < time.Hour {
		t.Errorf("without a length: %v left", got)
	}
}

// TestBackoff: its bounds are those that its comment promises.
func TestBackoff(t *testing.T) {
	for n, low := range []time.Duration{10, 20, 40, 50, 50, 50} {
		low *= time.Millisecond
		seen := make(map[time.Duration]bool)
		for range 1000 {
			if got := lease.Backoff(n); got < low || got >= 2*low {
				t.Fatalf("after try %d: %v, want %v to %v", n, got, low, 2*low)
			}
			seen[lease.Backoff(n)] = true
		}
		if len(seen) < 100 {
			t.Errorf("after try %d: %d different values of 1000", n, len(seen))
		}
	}
	if got := lease.Backoff(1 << 40); got < 50*time.Millisecond {
		t.Errorf("after very many tries: %v", got)
	}
}
