package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

// maxNote bounds a look at the audit, and a note in it, while the lock is held.
const maxNote = 10 * time.Second

// due returns nil if the last success is as long ago as --once-every says, or if
// there is none. The lock is held, so nobody else begins meanwhile.
func (h *held) due(ctx context.Context, o runOptions) error {
	if o.onceEvery == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, maxNote)
	defer cancel()
	ago, ok, err := pginspect.LastSuccess(ctx, h.conn, o.target)
	switch {
	case isNoAudit(err) || errors.Is(err, pginspect.ErrOldAudit):
		return failf(exitConfig, "run: --once-every: %w", err)
	case err != nil:
		return failf(exitUnavailable, "run: --once-every: %w", err)
	case !ok || ago >= o.onceEvery:
		return nil
	case o.quiet:
		return &failure{code: exitDone}
	}
	return failf(exitDone, "run: %s was done %v ago, which is less than --once-every %v", quote(o.target), ago.Round(time.Second), o.onceEvery)
}

// succeeded notes that the command has done its work, if --once-every asks.
func (h *held) succeeded(ctx context.Context, o runOptions) error {
	if o.onceEvery == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxNote)
	defer cancel()
	// A context that ends takes the session along, and with it the lock, which would
	// look as if it had been lost before. So the server ends a wait for a locked table.
	_, err := h.conn.ExecContext(ctx, "SELECT pg_catalog.set_config('lock_timeout', '5s', false)")
	if err == nil {
		err = pginspect.Succeed(ctx, h.conn, o.target)
	}
	if err != nil {
		return fmt.Errorf("%s may be run again before --once-every %v: %w", quote(o.target), o.onceEvery, err)
	}
	return nil
}
