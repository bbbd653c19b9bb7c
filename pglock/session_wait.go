package pglock

import (
	"context"
	"errors"
	"time"
)

// queue waits in line until the lock is granted or ctx ends.
func (a *access) queue(ctx context.Context, r request) (*PostgresLock, error) {
	straight := a.hint.at(r.key)
	if !straight {
		l, err := a.tryAcquire(ctx, r)
		if !elsewhere(err) {
			return l, err
		}
	}
	var t *ticket
	defer func() {
		if t != nil {
			a.leave(ctx, t)
		}
	}()
	for pace := newRhythm(); ; {
		s, err := a.step(ctx, r, t, !straight, pace.looks)
		t = s.t
		switch {
		case s.l != nil:
			return s.l, nil
		case err != nil && ctx.Err() != nil && (elsewhere(err) || unanswered(ctx, err) != err):
			return nil, notAcquired(ctx)
		case t != nil && errors.Is(err, ErrBusy): // The caller will close its Rows.
		case err != nil && !elsewhere(err): // Otherwise it was granted too late for its TTL.
			return nil, err
		case t != nil && !t.live():
			t = nil
		}
		if err := sleep(ctx, pace.next(t, s.advanced, max(r.TTL, minPlaceTTL)/3)); err != nil {
			return nil, err
		}
	}
}

// waitGrace is how long after the end of its context a caller waits for a step.
// It is shorter than grace, since a wait in the server goes on when the context
// ends.
const waitGrace = grace / 5

// A step is the result of one wait in line, or of one look at it.
type step struct {
	l *PostgresLock // nil: not granted yet
	t *ticket       // nil: there is no place in line
	advanced
}

// step takes a ticket, if t is nil, and then waits once for the lock. If looks
// is true, it does not wait, but only looks whether the lock is granted.
func (a *access) step(ctx context.Context, r request, t *ticket, tried, looks bool) (step, error) {
	tn, err := a.take(ctx)
	if err != nil {
		return step{t: t}, err
	}
	h := newHold(r).on(tn, a)
	s := step{t: t} // It belongs to the goroutine, which may outlive this call.
	err = tn.run(ctx, waitGrace, func(ctx context.Context, tn turn) error {
		if _, err := tn.ready(r); err != nil {
			return err
		}
		if err := confirm(tn); err != nil { // The wait may outlast a shorter lease.
			return err
		}
		tn.led.settings.readIn = 0
		if s.t == nil {
			p, err := leasePlace(tn, r)
			if err != nil {
				return err
			}
			placed, err := takeTicket(ctx, tn, r.key, &a.hint, taken{}, p)
			if placed == nil {
				return errors.Join(err, leavePlace(tn, p))
			}
			a.hint.joined(r.key, placed, tried)
			s.t = placed
		}
		var wait time.Duration
		if !looks {
			wait = a.serverWait(ctx, tn.led)
		}
		adv, err := s.t.advance(ctx, tn, h, wait)
		s.advanced = adv
		if err != nil || !adv.granted {
			return err
		}
		if err = complete(ctx, tn, h); err != nil {
			leavePlace(tn, s.t.place)
			return err
		}
		if err := served(tn, s.t.place, h); err != nil {
			release(tn, h)
			return err
		}
		s.l = h.begin()
		return nil
	}, func(tn turn, err error) {
		if s.l != nil {
			s.l.dropped.Stop()
			release(tn, h)
		}
		if s.t != nil {
			s.t.drop(tn)
		}
	})
	if errors.Is(err, errLeft) {
		return step{}, err // The ticket is dropped in the background.
	}
	return s, err
}

// serverWait returns how long a statement may wait on a caller's session. It is
// 0 where the session has locks, whose calls would have to wait as well, and where
// the server looks for deadlocks too soon.
func (a *access) serverWait(ctx context.Context, led *ledger) time.Duration {
	if !led.empty() || a.polling {
		return 0
	}
	return serverWait(ctx, led.deadlock)
}

// leave gives up the place of a caller that has the lock, or does not wait any
// longer.
func (a *access) leave(ctx context.Context, t *ticket) {
	if !t.live() {
		return
	}
	err := turn{a, t.led}.soon(ctx, func(tn turn) error { return t.drop(tn) })
	if err != nil && !errors.Is(err, errLeft) && !notSent(err) {
		a.log.Warn("pglock: the session was destroyed, to give up its place in line", "err", err)
	}
}
