package pglock

import (
	"context"
	"math"
	"time"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// maxSilence is how long a session that holds a lock without a TTL waits for
// the answer to a statement. The wait is long because it is safe: the server
// gives the lock to nobody else while the session lives.
var maxSilence = time.Minute

// Silent returns how much longer the locks of the session can wait for a statement
// that the server has not answered. When none can wait, the session is lost.
func (led *ledger) Silent(since time.Duration) time.Duration {
	led.mu.Lock()
	defer led.mu.Unlock()
	now := time.Now()
	var more time.Duration
	for _, h := range led.locks {
		switch left := min(h.lease.left(now), led.lease.left(now)); {
		case h.err != nil:
		case left < math.MaxInt64:
			more = max(more, left)
		default:
			more = max(more, maxSilence-since)
		}
	}
	if awaited := led.awaited(); more == 0 && awaited > 0 && led.dead == nil {
		return min(awaited, lookAgain)
	}
	if !led.stalled.Swap(true) {
		close(*led.silence.Load())
		if led.owner != nil && more > 0 {
			led.cancels.Add(1)
			led.owner.slow(db.CancelBackendParams{Pid: led.backend, Started: led.started}, led.cancels.Done)
		}
	}
	if more > 0 {
		return min(more, patience) // The locks that can wait may be released meanwhile.
	}
	led.loseLocked(oneconn.ErrSilent)
	return 0
}

// quiet returns a channel that is closed once the server has been silent for
// patience. After an answer there is a new channel.
func (led *ledger) quiet() <-chan struct{} { return *led.silence.Load() }

// answered notes that the server is not silent any more.
func (led *ledger) answered() {
	if !led.stalled.Load() {
		return
	}
	led.cancels.Wait() // A cancel that arrives late would end the next statement.
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.stalled.Load() {
		silence := make(chan struct{})
		led.silence.Store(&silence)
		led.stalled.Store(false)
	}
}

// take waits for the turn until ctx ends, or the server is silent.
func (led *ledger) take(ctx context.Context) error {
	if led.turns.Take(ctx, led.gone, led.quiet()) {
		return nil
	}
	if err := led.alive(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return notAcquired(ctx)
	}
	return oneconn.ErrSilent
}

// takeAlways waits for the turn for as long as the session lives.
func (led *ledger) takeAlways() error {
	if led.turns.Take(context.Background(), led.gone, nil) {
		return nil
	}
	return led.alive()
}
