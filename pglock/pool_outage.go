package pglock

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/outage"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// This file lets a Pool's Acquire wait on while the server cannot be used,
// because it restarts, fails over, or has no connection left.

// A spell is an outage as one waiter sees it.
type spell struct {
	p     *Pool
	last  error         // of the last attempt; nil: there is no outage
	pause time.Duration // the last pause between two attempts
}

const (
	// maxSpellPause is the longest time from one attempt to the next while there
	// is an outage.
	maxSpellPause = time.Second
	// warnEvery is how often an outage is logged.
	warnEvery = time.Minute
)

// goesOn reports whether a waiter whose attempt failed with err is to try
// again, on a new session and with a new place in line. It pauses before it
// returns true.
func (s *spell) goesOn(ctx context.Context, err error) bool {
	if err == nil || ctx.Err() != nil || s.p.life.Err() != nil {
		return false
	}
	if !s.is(err) {
		return false
	}
	s.p.outages.note(err)
	s.last = err
	return s.sleep(ctx)
}

// is reports whether err says that there is an outage. A standby, and a host
// name that is not known, are errors of the configuration, unless an outage has
// begun before: then the standby may be about to be promoted, and the name may
// come back.
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

// explain adds to the error of a waiter whose context has ended why the server
// could not be used.
func (s *spell) explain(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() == nil:
		return err
	case s.last == nil && s.is(err): // The first attempt of an outage ended with ctx.
		s.last = err
	}
	if s.last == nil || errors.Is(err, s.last) && errors.Is(err, swanlock.ErrNotAcquired) {
		return err
	}
	return fmt.Errorf("%w: the server could not be used: %w", notAcquired(ctx), s.last)
}

// sleep is the backoff between two attempts, and grows from one to the next. It
// goes on for as long as the attempts of other waiters show that the outage has
// not ended. It reports whether the waiter is to try again: not if ctx has
// ended.
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
		if time.Since(s.p.outages.last()) >= d/2 {
			return true
		}
	}
}

// outages have what the waiters of a pool tell each other of outages.
type outages struct {
	log *slog.Logger

	mu     sync.Mutex
	failed time.Time // when an attempt to use the server last failed
	warned time.Time // when that was last logged
}

// note notes that an attempt to use the server has just failed, and logs that
// now and then.
func (o *outages) note(err error) {
	now := time.Now()
	o.mu.Lock()
	warn := now.Sub(o.warned) >= warnEvery
	if warn {
		o.warned = now
	}
	o.failed = now
	o.mu.Unlock()
	if warn {
		o.log.Warn("pglock: Acquire waits for the server, which cannot be used", "err", err)
	}
}

// last returns when an attempt to use the server last failed.
func (o *outages) last() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.failed
}
