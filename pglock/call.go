package pglock

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// This file is how a caller waits for work that goes on when the caller leaves.

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

// A call is the wait of one caller for a goroutine that does its work. When the
// caller stops waiting, the goroutine goes on, and undoes what it has done.
type call struct {
	state atomic.Int32  // calling, returned or left
	done  chan struct{} // closed when the goroutine has finished
	err   error
	panic any
}

const (
	calling int32 = iota
	returned
	left
)

// errLeft says that a caller stopped waiting for a call that goes on.
var errLeft = errors.New("the call is finished in the background")

// run calls f with the turn, in a goroutine that gives the turn afterwards, and
// returns the error of f. It waits until ctx ends or the server is silent, and
// for grace after that; then it returns errLeft. If f returns later, undo is
// called with its error.
func (tn turn) run(ctx context.Context, grace time.Duration, f func(context.Context, turn) error, undo func(turn, error)) error {
	return tn.wait(ctx, grace, func() error { return f(ctx, tn) }, func(err error) { undo(tn, err) }, tn.give)
}

// soon is run for work that must be done even if the caller leaves. It takes
// the turn itself, in the goroutine.
func (tn turn) soon(ctx context.Context, f func(turn) error) error {
	return tn.wait(ctx, cleanupGrace(ctx), func() error {
		tn, err := tn.takeAlways()
		if err != nil {
			return err
		}
		defer tn.give()
		return f(tn)
	}, func(error) {}, func() {})
}

func (tn turn) wait(ctx context.Context, grace time.Duration, f func() error, undo func(error), end func()) error {
	defer tn.led.awaitFirst(ctx)()
	c := &call{done: make(chan struct{})}
	go c.do(tn.led, f, undo, end)
	quiet := tn.led.quiet()
	select {
	case <-c.done:
		return c.result()
	case <-ctx.Done():
	case <-quiet:
	case <-tn.led.gone:
	}
	if sleepUntil(c.done, grace) {
		return c.result()
	}
	if !c.state.CompareAndSwap(calling, left) {
		<-c.done
		return c.result()
	}
	err := tn.led.alive()
	switch {
	case err != nil:
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	default:
		err = oneconn.ErrSilent
	}
	return fmt.Errorf("%w: %w", errLeft, err)
}

func (c *call) do(led *ledger, f func() error, undo func(error), end func()) {
	defer func() {
		if c.panic = recover(); c.panic != nil {
			led.lose(fmt.Errorf("the driver panicked: %v", c.panic))
			c.state.CompareAndSwap(calling, returned)
		}
		end()
		close(c.done)
	}()
	c.err = f()
	if !c.state.CompareAndSwap(calling, returned) {
		undo(c.err)
	}
}

func (c *call) result() error {
	if c.panic != nil {
		panic(c.panic)
	}
	return c.err
}

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
