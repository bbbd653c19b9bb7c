package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// This file settles what others have left on a session.

// settle unlocks the locks that have ended here but that the server may still
// hold, drops the tickets of callers that have left, and takes back the leases
// of their places.
func (tn turn) settle() error {
	for {
		h, t := tn.led.nextUnsettled()
		if t != nil {
			if err := t.drop(tn); err != nil {
				return err
			}
			continue
		}
		if p := tn.led.settings.places.left(); h == nil && p != nil {
			if err := leavePlace(tn, p); err != nil {
				return err
			}
			continue
		}
		if h == nil {
			return tn.led.alive()
		}
		err := release(tn, h)
		if notSent(err) {
			return err
		}
		if tn.led.contains(h) {
			return fmt.Errorf("the session still has to unlock %s: %w", quote(h.target), sql.ErrConnDone)
		}
	}
}

// releaseAll releases the locks that were taken through the access of tn, and
// drops its tickets. Its errors are those of locks whose holders were not told.
func (tn turn) releaseAll() (errs []error) {
	holds, tickets := tn.led.takenThrough(tn.access)
	for _, t := range tickets {
		if err := t.drop(tn); err != nil {
			errs = append(errs, err)
		}
	}
	for _, h := range holds {
		h.free()
	}
	for _, h := range holds {
		if err := release(tn, h); err != nil && !errors.Is(err, errDropped) {
			errs = append(errs, fmt.Errorf("pglock: release %s: %w", quote(h.target), err))
		}
	}
	return errs
}

// drop ends a lock whose handle the garbage collector has found unreachable.
func drop(h *hold) {
	h.led.mu.Lock()
	over := h.err != nil
	if !over {
		h.endLocked(lost(errDropped))
	}
	background := !over && (h.auto != nil || h.led.owner != nil) // The session may be used in the background.
	if !background {
		h.letGoLocked()
	}
	h.led.mu.Unlock()
	if background {
		go h.release(context.Background())
	}
	if !over {
		h.log.Warn("pglock: a lock was dropped without Release", "target", quote(h.info.Target), "owner", h.info.Owner)
	}
}
