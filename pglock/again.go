package pglock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file is what becomes of an audited statement whose row others have kept from
// being written. With it goes its transaction, but not what it did to the session's
// locks.

// auditTries is how often a row is tried to be written when others get in its way.
const auditTries = 10

// inTheWay reports whether err says that a transaction has failed for what others
// did meanwhile, and may succeed if it is repeated.
func inTheWay(err error) bool {
	state := sqlState(err)
	return state == serializationFailure || state == deadlockDetected
}

// again reports whether a statement that has failed with err for the nth time is to
// be sent once more, and pauses before that.
func (tn turn) again(ctx context.Context, err error, n int) bool {
	if !inTheWay(err) || n >= auditTries || ctx.Err() != nil || tn.led.alive() != nil {
		return false
	}
	time.Sleep(rand.N(time.Millisecond << min(n, 5)))
	return true
}

// writeAgain has f write a row until nobody is in its way.
func (tn turn) writeAgain(f func(ctx context.Context) error) (err error) {
	for n := 1; ; n++ {
		if err = tn.do(context.Background(), f); err == nil || !tn.again(context.Background(), err, n) {
			return err
		}
	}
}

// auditReleased closes the row of a lock that was unlocked by a statement which
// began at the time given, as the one that should have done both has failed.
func (tn turn) auditReleased(h *hold, at int64, reason string) error {
	return tn.writeAgain(func(ctx context.Context) error {
		return tn.auditIn(h.schema).AuditReleased(ctx, db.AuditReleasedParams{AuditID: h.audit, At: at, EndReason: reason})
	})
}

// aborted adds to err, of a statement in the caller's transaction, that it has
// made that fail.
func aborted(err error) error { return fmt.Errorf("%w: %w", ErrAbortedTransaction, err) }
