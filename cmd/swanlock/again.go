package main

import (
	"context"
	"io"
	"math/rand/v2"
	"time"

	"github.com/swanlake-io/swanlock/internal/outage"
)

// acquireThrough is acquire, but a wait goes on while the server cannot be
// used, because it restarts, fails over, or is full. Each attempt has a
// connection of its own, and a new place in line.
func acquireThrough(ctx context.Context, log io.Writer, o runOptions) (*held, error) {
	deadline := time.Now().Add(o.timeout)
	told := false
	for pause := 50 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		h, err := acquire(ctx, log, o)
		if err == nil || !o.wait && o.timeout == 0 || ctx.Err() != nil || !outage.Is(err) {
			return h, err
		}
		wait := pause/2 + rand.N(pause/2)
		if o.timeout > 0 {
			if o.timeout = time.Until(deadline) - wait; o.timeout <= 0 {
				return nil, err
			}
		}
		if !told {
			told = true
			complain(log, failf(exitUnavailable, "run: waiting for the server: %w", err))
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, err
		}
	}
}
