package pglock

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/outage"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// This file is what a Pool's Acquire does while the server cannot be used: it
// restarts, fails over, or has no connection left. Who waits, waits.

// A spell is an outage as one waiter sees it.
type spell struct {
	p     *Pool
	last  error // nil: there is none
	pause time.Duration
}

const (
	// maxSpellPause is the longest time from one attempt to the next while there
	// is an outage.
	maxSpellPause = time.Second
	// warnEvery is how often an outage is logged.
	warnEvery = time.Minute
)

// goesOn reports whether a waiter that has met err is to try again, after a pause,
// on a new session and with a new place in line.
func (s *spell) goesOn(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || s.p.life.Err() != nil {
		return false
	}
	if !s.is(err) {
		return false
	}
	s.p.noteOutage(err)
	s.last = err
	return s.sleep(ctx)
}

// is reports whether err says that there is an outage. What else may be wrong with a
// server is part of one only if that has begun with the server away: the standby
// that is to be promoted, the host whose name comes back with it.
func (s *spell) is(err error) bool {
	switch {
	case errors.Is(err, ErrPooler):
		return false
	case errors.Is(err, errSessionGone), errors.Is(err, oneconn.ErrSilent), errors.Is(err, oneconn.ErrNotSent), outage.Is(err):
		return true
	}
	return s.last != nil && (errors.Is(err, ErrStandby) || outage.IsUnknownHost(err))
}

// ended notes that the server has answered.
func (s *spell) ended() { s.last, s.pause = nil, 0 }

// explain adds to the error of a waiter whose time is up why the server could not
// be used.
func (s *spell) explain(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case s.last == nil && s.is(err): // the attempt under way ended with ctx
		s.last = err
	}
	if s.last == nil || errors.Is(err, s.last) && errors.Is(err, swanlock.ErrNotAcquired) {
		return err
	}
	return fmt.Errorf("%w: the server could not be used: %w", notAcquired(ctx), s.last)
}

// sleep pauses, longer from one time to the next, and longer still while the
// attempts of other waiters show that the outage has not ended. It reports whether
// ctx, and the pool, go on.
func (s *spell) sleep(ctx context.Context) bool {
	s.pause = min(max(2*s.pause, 20*time.Millisecond), maxSpellPause)
	for {
		d := s.pause/2 + rand.N(s.pause/2)
		timer := time.NewTimer(d)
		select {
		case <-timer.C:
		case <-ctx.Done():
		case <-s.p.life.Done():
		}
		timer.Stop()
		if ctx.Err() != nil || s.p.life.Err() != nil {
			return ctx.Err() == nil
		}
		if time.Since(s.p.outageSeen()) >= d/2 {
			return true
		}
	}
}

// noteOutage remembers when an attempt to use the server was in vain, and logs it
// now and then.
func (p *Pool) noteOutage(err error) {
	now := time.Now()
	p.mu.Lock()
	warn := now.Sub(p.outageWarned) >= warnEvery
	if warn {
		p.outageWarned = now
	}
	p.outageAt = now
	p.mu.Unlock()
	if warn {
		p.log.Warn("pglock: Acquire waits for the server, which cannot be used", "err", err)
	}
}

func (p *Pool) outageSeen() time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.outageAt
}
