package pglock

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file settles with the server what is held: after an error, after a
// loss, and when a lock ends. Its functions are called by whoever has the turn.
// What they cannot settle they destroy.

// undo makes sure that a try that failed with err has left nothing: an error
// does not mean that the lock was not granted. If the server spoke, the session
// is asked to unlock; otherwise, or if it cannot, it is destroyed.
func (w *wire) undo(ctx context.Context, h *hold, err error) {
	switch state := sqlState(err); {
	case state == "25P02", state == "26000", state == "42P05": // refused before it ran
		return
	case state == "", h.info.Shared && h.led.reads(h.id.key, h): // whose lock would be undone?
	default:
		if w.unlockIfHeld(ctx, h) == nil {
			return
		}
		// A role that may not unlock may still ask.
		if row, err := w.probe(ctx, h); err == nil && !row.Held {
			return
		}
	}
	w.destroy(h.led, err)
}

// unlockIfHeld frees, once, what the ledger does not know of.
func (w *wire) unlockIfHeld(ctx context.Context, h *hold) error {
	return w.ask(ctx, h.led, func(ctx context.Context) error {
		_, err := w.q.Undo(ctx, db.UndoParams{Key: int64(h.id.key), Shared: h.info.Shared})
		return err
	})
}

// checkFree looks whether the session holds key by the ledger, and then asks
// the server whether that is so. It does not restart that lock's TTL.
func (w *wire) checkFree(ctx context.Context, led *ledger, key Key) error {
	h := led.holds(key)
	if h == nil {
		return nil
	}
	row, err := w.probe(ctx, h)
	if err != nil {
		err = w.examine(ctx, h, err)
	} else if err = w.proven(ctx, h, row); err == nil {
		return swanlock.ErrAlreadyHeld
	}
	if h.over() == nil {
		return err
	}
	// That lock is lost, which its holder is told. This one may be had if the
	// session lives.
	if errors.Is(err, ErrPooler) {
		return ErrPooler
	}
	if dead := led.alive(); dead != nil {
		return dead
	}
	_, _, err = ledgerOf(w.conn)
	return err
}

// settle unlocks what has ended here but may still be locked on the server, and
// leaves the lines that nobody waits in any more.
func (w *wire) settle(ctx context.Context, led *ledger) error {
	for {
		h, t := led.owes()
		if t != nil {
			if err := w.drop(ctx, t); err != nil {
				return err
			}
			continue
		}
		if h == nil {
			return led.alive()
		}
		w.unlock(ctx, h)
		if led.has(h) {
			return fmt.Errorf("the session still owes the unlock of %s: %w", quote(h.info.Target), sql.ErrConnDone)
		}
	}
}

// proven judges what the server said of the lock, and clears up after a loss.
func (w *wire) proven(ctx context.Context, h *hold, row db.RefreshRow) error {
	switch {
	case row.Pid != h.pid:
		return w.strayed(ctx, h, row.Pid)
	case !row.Held:
		err := h.lose(errors.New("the session does not hold it any more"))
		w.unlock(ctx, h) // puts back the settings
		return err
	}
	return nil
}

// examine asks the session whether it still holds the lock after a refresh
// that failed with err.
func (w *wire) examine(ctx context.Context, h *hold, err error) error {
	state := sqlState(err)
	err = explain(err, h.audit != 0)
	if state != "" && state != "25P02" {
		row, again := w.probe(ctx, h)
		if again == nil {
			if lost := w.proven(ctx, h, row); lost != nil {
				return lost
			}
			return err
		}
		state = sqlState(again)
	}
	if state == "25P02" {
		return err // the session lives, and its locks outlive the transaction
	}
	w.destroy(h.led, err)
	return h.over()
}

// strayed ends the lock when another backend answered. The one that granted it
// cannot be spoken to, only ended, and so it is with the session's other locks.
func (w *wire) strayed(ctx context.Context, h *hold, pid int32) error {
	err := h.lose(fmt.Errorf("%w (process %d granted the lock, %d answered)", ErrPooler, h.pid, pid))
	h.led.mu.Lock()
	granted := slices.Collect(maps.Values(h.led.locks))
	h.led.mu.Unlock()
	for _, other := range granted {
		w.terminate(ctx, other)
	}
	w.destroy(h.led, ErrPooler)
	return err
}

// unlock frees the lock on the server and ends it. It returns nil if the lock
// was held until now.
func (w *wire) unlock(ctx context.Context, h *hold) error {
	if !h.led.has(h) { // its session is gone, or somebody paid what it owed
		return h.over()
	}
	next, settings := h.led.without(h)
	sent := time.Now()
	row, err := w.release(ctx, h, settings, h.audit != 0)
	var unaudited error
	if sqlState(err) != "" && !(h.info.Shared && h.led.reads(h.id.key, h)) {
		// The server spoke, so the session lives: ask it for the unlock alone.
		unaudited = explain(err, h.audit != 0)
		row, err = w.release(ctx, h, settings, false)
	}
	if err != nil {
		w.destroy(h.led, explain(err, false))
		return h.over()
	}
	if row.Pid != h.pid {
		return w.strayed(ctx, h, row.Pid)
	}
	h.led.touch(sent)
	if row.Released {
		h.led.mu.Lock()
		h.end(swanlock.ErrReleased)
		h.led.mu.Unlock()
	} else {
		h.lose(errors.New("the session did not hold it any more"))
		if h.audit != 0 && unaudited == nil {
			w.auditLost(ctx, h)
		}
	}
	h.led.remove(h, next)
	if err := h.over(); !errors.Is(err, swanlock.ErrReleased) {
		return err
	}
	if h.audit != 0 {
		return unaudited
	}
	return nil
}

// terminate ends the backend that granted h, if it still holds the lock.
func (w *wire) terminate(ctx context.Context, h *hold) {
	err := w.ask(ctx, h.led, func(ctx context.Context) error {
		_, err := w.q.Terminate(ctx, db.TerminateParams{Key: int64(h.id.key), Shared: h.info.Shared, Pid: h.pid})
		return err
	})
	if err != nil {
		w.log.Warn("pglock: a backend behind a pooler may still hold a lock", "pid", h.pid, "target", quote(h.info.Target), "err", err)
	}
}

// destroy ends the session: sql.Conn.Close would only give it back to the pool,
// locks and all. The driver's connection is closed at once, in Raw, where nobody
// else can use it; the *sql.Conn follows when the caller's own Rows and
// transaction on it have ended.
func (w *wire) destroy(led *ledger, cause error) {
	closed := make(chan error, 2)
	go func() {
		closed <- w.conn.Raw(func(driverConn any) error {
			if c, ok := driverConn.(driver.Conn); ok {
				c.Close()
				closed <- nil
			}
			return driver.ErrBadConn
		})
	}()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case err := <-closed:
		if errors.Is(err, sql.ErrConnDone) { // it was closed before
			if !led.pooled() { // the session is dead, or in the caller's pool
				led.abandon(w.conn, false, fmt.Errorf("%w: %w", cause, err))
				return
			}
			break
		}
		timer.Reset(grace)
		select {
		case <-closed:
		case <-timer.C: // the caller's Rows or transaction are open still
		}
	case <-timer.C:
		w.log.Error("pglock: the connection is in use and could not be closed: its locks live until it is", "cause", cause)
	}
	led.lose(cause)
}
