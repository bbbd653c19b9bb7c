package pglock

import (
	"context"
	"errors"

	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// take waits for the turn until ctx ends. It marks the session if that was not
// done yet, so that the turn it returns is that of a session which is known.
func (a *access) take(ctx context.Context) (turn, error) {
	for {
		tn, err := a.takeOnce(ctx)
		switch {
		case err != nil, tn.led.who.isKnown(), tn.closed.Load():
			return tn, err
		case tn.led.current() != tn.led: // found out by another call, while this one waited
			tn.give()
			continue
		}
		err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error { return tn.mark(ctx) }, func(turn, error) {})
		if err != nil {
			return turn{}, unanswered(ctx, err)
		}
	}
}

func (a *access) takeOnce(ctx context.Context) (turn, error) {
	if ctx.Err() != nil {
		return turn{}, notAcquired(ctx)
	}
	led, err := a.ledger(ctx, 0)
	if err != nil {
		return turn{}, unanswered(ctx, err)
	}
	tn, err := a.takeOf(ctx, led)
	return tn, unanswered(ctx, err)
}

// tryAcquire makes one attempt. Whatever its error, nothing is held.
func (a *access) tryAcquire(ctx context.Context, r request) (*PostgresLock, error) {
	tn, err := a.take(ctx)
	if err != nil {
		return nil, err
	}
	h := newHold(r).on(tn, a)
	err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error {
		lease, err := tn.ready(r)
		if err == nil {
			err = makeLasting(tn, r)
		}
		if err != nil {
			return err
		}
		return grant(ctx, tn, h, lease)
	}, func(tn turn, err error) {
		if err == nil {
			release(tn, h)
		}
	})
	if err != nil {
		return nil, unanswered(ctx, err)
	}
	return h.begin(), nil
}

// renew refreshes a lock on a caller's connection.
func (a *access) renew(ctx context.Context, h *hold, itself bool) error {
	tn, err := a.takeOf(ctx, h.led)
	if err != nil {
		switch over := h.over(); {
		case over != nil:
			return over
		case ctx.Err() != nil:
			return context.Cause(ctx)
		}
		return err
	}
	err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error {
		if _, err := h.state(); err != nil {
			return err
		}
		return renew(ctx, tn, h, itself)
	}, func(turn, error) {})
	switch {
	case ctx.Err() != nil && errors.Is(err, oneconn.ErrNotSent):
		return context.Cause(ctx)
	case errors.Is(err, errLeft) && h.over() != nil:
		return h.over()
	}
	return err
}

// release frees a lock on a caller's connection. If the server does not confirm
// in time that the lock was held until then, the lock counts as lost; the
// unlock goes on in the background.
func (a *access) release(ctx context.Context, h *hold) error {
	err := turn{a, h.led}.soon(ctx, func(tn turn) error {
		err := release(tn, h)
		tn.settle()
		return err
	})
	if errors.Is(err, errLeft) {
		return h.lose(err)
	}
	if dead := h.led.alive(); dead != nil && err != nil {
		return h.over()
	}
	return err
}
