package pglock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file repeats audited statements whose row could not be written because
// of what other sessions did meanwhile. The failure rolls back the row, but not
// what the statement did to the session's locks.

// auditTries is how often a row is written, at most, until it succeeds.
const auditTries = 20

// inTheWay reports whether err says that a transaction has failed because of
// what other sessions did meanwhile, and may succeed if it is repeated.
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

// writeAgain calls f, which writes a row, and repeats that while other sessions
// make it fail.
func (tn turn) writeAgain(f func(ctx context.Context) error) (err error) {
	for n := 1; ; n++ {
		if err = tn.do(context.Background(), f); err == nil || !tn.again(context.Background(), err, n) {
			return err
		}
	}
}

// auditReleased closes the row of a lock whose ReleaseAudited has failed. The
// statement that unlocked it began at the time at, in microseconds since 1970, or
// longAgo if that is not known: then the interval ends when the lock was last
// proven, and so before the next begins.
func (tn turn) auditReleased(h *hold, at int64, reason string) error {
	return tn.writeAgain(func(ctx context.Context) error {
		return tn.auditIn(h.schema).AuditReleased(ctx, db.AuditReleasedParams{AuditID: h.audit, At: at, EndReason: reason})
	})
}

const longAgo = 0

// aborted adds to err that it has made the caller's transaction fail.
func aborted(err error) error { return fmt.Errorf("%w: %w", ErrAbortedTransaction, err) }
