package pglock

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// A beat is the heartbeat of a Session. It goes on while the Session has locks.
type beat struct {
	mu sync.Mutex
	on bool // a timer is set, or beatOnce runs
}

// startBeating starts the heartbeat if it is wanted and not on. It is called
// after a lock was entered in the ledger.
func (a *access) startBeating() {
	if a.heartbeat == 0 {
		return
	}
	a.beat.mu.Lock()
	defer a.beat.mu.Unlock()
	if !a.beat.on {
		a.beat.on = true
		time.AfterFunc(a.heartbeat, a.beatOnce)
	}
}

// beatOnce proves the locks of the session, and sets the timer for the next
// time. If the connection is in use for the whole interval, nothing is sent.
func (a *access) beatOnce() {
	ctx, cancel := context.WithTimeout(context.Background(), a.heartbeat)
	defer cancel()
	if tn, err := a.take(ctx); err == nil {
		err = tn.run(ctx, grace, func(ctx context.Context, tn turn) error { return prove(ctx, tn) }, func(turn, error) {})
		if err != nil && !notSent(err) && ctx.Err() == nil {
			a.log.Warn("pglock: heartbeat failed", "err", err)
		}
	}
	a.beat.mu.Lock()
	defer a.beat.mu.Unlock()
	led := a.led.Load().current()
	if a.beat.on = led.hasFrom(a); a.beat.on {
		time.AfterFunc(a.heartbeat, a.beatOnce)
	}
}

// prove asks the server which locks the session has, and ends those that it
// does not have. It sends nothing while the connection's owner has a transaction
// open.
func prove(ctx context.Context, tn turn) error {
	if tn.closed.Load() {
		return nil
	}
	if err := tn.outside(ctx); err != nil {
		if errors.Is(err, sql.ErrConnDone) {
			tn.led.abandon(tn.sql(), errClosed)
		}
		return err
	}
	sent := time.Now()
	held, err := heldKeys(ctx, tn)
	switch {
	case err == nil:
	case notSent(err) || !cutOff(err):
		return err
	case errors.Is(err, ErrPooler):
		if h := tn.led.any(); h != nil {
			row, unknown := probe(tn, h)
			if unknown == nil {
				return proven(tn, h, row)
			}
		}
		return err
	default:
		tn.destroy(err)
		return err
	}
	tn.led.touch(sent)
	for _, h := range tn.led.holds() {
		if shared, ok := held[h.key]; !ok || shared != h.Shared {
			proven(tn, h, db.RefreshRow{Pid: h.pid})
		}
	}
	return tn.settle()
}

// heldKeys asks the session for the keys of its locks. The value is true for
// a shared lock.
func heldKeys(ctx context.Context, tn turn) (map[Key]bool, error) {
	keys := make(map[Key]bool)
	err := tn.do(ctx, func(ctx context.Context) error {
		rows, err := tn.q.HeldKeys(ctx)
		for _, row := range rows {
			keys[Key(row.Key)] = row.Shared
			if row.Pid != tn.led.who.pid {
				return ErrPooler
			}
		}
		return err
	})
	return keys, err
}
