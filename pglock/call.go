package pglock

import (
	"context"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// This file is how long a caller waits for work that goes on when it leaves.

const (
	// patience is how long a caller waits for an answer, if its context does not
	// end sooner.
	patience = oneconn.Patience
	// grace is how much longer than its context a caller waits: an answer is
	// usually under way, and what it did must be settled.
	grace = 500 * time.Millisecond
	// tidying is the same for a release whose context had ended before.
	tidying = 2 * time.Second
)

// cleanupGrace returns for how long after the end of ctx a caller waits for a
// call that frees something.
func cleanupGrace(ctx context.Context) time.Duration {
	if ctx.Err() != nil {
		return tidying
	}
	return grace
}

// within calls f, which takes no context or does not look at it, and returns what
// f returns. It stops waiting when ctx has ended and grace has passed, and returns
// unanswered then; what f returns later without an error is given to late.
func within[T any](ctx context.Context, grace time.Duration, f func() (T, error), late func(T), unanswered error) (T, error) {
	if ctx.Done() == nil {
		return f()
	}
	var v T
	var err error
	done := make(chan struct{})
	go func() {
		defer close(done)
		v, err = f()
	}()
	select {
	case <-done:
		return v, err
	case <-ctx.Done():
	}
	if sleepUntil(done, grace) {
		return v, err
	}
	go func() {
		if <-done; err == nil {
			late(v)
		}
	}()
	var none T
	return none, fmt.Errorf("%w: %w", unanswered, context.Cause(ctx))
}

// sleepUntil waits until done is closed, for d at most, and reports whether it
// was closed.
func sleepUntil(done <-chan struct{}, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
		return false
	}
}
