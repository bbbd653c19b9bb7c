package lease

import (
	"testing"
	"time"
)

// TestNextLook: the timer stands still while a machine sleeps, so the clocks are looked
// at every third of the lease, and at the deadline.
func TestNextLook(t *testing.T) {
	for length, wants := range map[time.Duration]map[time.Duration]time.Duration{ // by what has passed
		9 * time.Second:  {0: 3 * time.Second, 7 * time.Second: 2 * time.Second},
		time.Millisecond: {0: time.Millisecond},
	} {
		for passed, want := range wants {
			start := time.Now()
			h := &hold{Request: Request{Lease: length}, term: Term{length, start}}
			if got := h.nextLook(start.Add(passed)); got != want {
				t.Errorf("%v after the beginning of a lease of %v: got %v, want %v", passed, length, got, want)
			}
		}
	}
}
