package pglock

import (
	"context"
	"errors"
	"time"
)

// renew proves the lock and restarts its TTL.
func renew(ctx context.Context, tn turn, h *hold, itself bool) error {
	audited := h.audit != 0
	if audited && itself && errors.Is(tn.outside(ctx), errInTransaction) {
		audited = false // in one that is read-only the row would make it fail
	}
	var unaudited error
	if audited {
		unaudited = tn.unwritable()
		audited = unaudited == nil
	}
	begun := time.Now()
	sent := begun
	row, err := refresh(ctx, tn, h, audited)
	var failed error // of the attempt before
	for n := 1; audited && again(ctx, tn, err, n, begun); n++ {
		failed, sent = err, time.Now()
		row, err = refresh(ctx, tn, h, true)
	}
	if state := sqlState(err); audited && state != "" && state != inFailedTransaction {
		// The error is the server's, so the session lives, and the lock can be
		// refreshed without its row.
		unaudited = tn.unwritten(err)
		failed, sent = err, time.Now()
		row, err = refresh(ctx, tn, h, false)
	}
	if err != nil {
		byRow := failed != nil && sqlState(err) == inFailedTransaction
		if byRow {
			err = aborted(failed)
		}
		return examine(tn, h, err, byRow)
	}
	if err := proven(tn, h, row); err != nil {
		return err
	}
	tn.led.renewed(sent, func(other *hold) bool { return other == h })
	switch reverted := sawWitness(tn, row.Xact, row.Witness); {
	case tn.led.settings.temporary:
		learn(tn)
	case reverted:
		putAgain(tn)
	}
	tn.settle() // A lock that has ended must not live on by the lease that was set again.
	if over := h.over(); over != nil {
		return over
	}
	return unaudited
}
