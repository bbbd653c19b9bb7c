package pglock

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// TestTakeSoon: a release waits as long as others take their turns, however
// many there are, and gives up when one does not end.
func TestTakeSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		led := &ledger{turn: make(chan struct{}, 1)}
		for range 10 {
			go func() {
				if led.take(context.Background()) == nil {
					time.Sleep(patience)
					led.give()
				}
			}()
		}
		synctest.Wait()
		start := time.Now()
		if err := led.takeSoon(); err != nil {
			t.Errorf("after %v among ten who take their turns: %v", time.Since(start), err)
		}
		// Now the turn never ends.
		start = time.Now()
		if err := led.takeSoon(); err == nil || time.Since(start) != 2*patience {
			t.Errorf("got %v after %v, want an error after %v", err, time.Since(start), 2*patience)
		}
	})
}
