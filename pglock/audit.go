package pglock

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file writes the rows of the audit, for which a statement may have to be
// repeated: what other sessions do meanwhile can make the row fail. That rolls
// back the row, but not what the statement did to the session's locks.

// A row that other sessions make fail is tried until auditPatience is over, or half of
// what was left to the first of the session's locks that ends, and auditTries times at
// least, since a deadlock may take long to be found.
const auditTries, auditPatience = 5, 2 * time.Second

// inTheWay reports whether err says that a transaction has failed because of
// what other sessions did meanwhile, and may succeed if it is repeated.
func inTheWay(err error) bool {
	state := sqlState(err)
	return state == serializationFailure || state == deadlockDetected
}

// unwritable returns why no row is to be written by a statement that can do without,
// or nil: the caller's transaction is read-only, or another row has waited in vain in
// this turn. The session's other locks cannot wait for each row of a locked table.
func (tn turn) unwritable() error {
	if tn.led.inVain == nil && tn.readOnly() {
		return errReadOnly
	}
	return tn.led.inVain
}

// unwritten returns err, with which a row was not written, as explain does. It notes
// whether the row has waited in vain, as while another session has locked the table.
func (tn turn) unwritten(err error) error {
	if err = explain(err, true); waitEnded(err) {
		tn.led.inVain = err
	}
	return err
}

// writing calls f, which writes a row, if one is to be written.
func (tn turn) writing(f func() error) error {
	if err := tn.unwritable(); err != nil {
		return err
	}
	return tn.unwritten(f())
}

// again reports whether a statement that was first sent at begun, and has failed with
// err for the nth time, is to be sent once more, and pauses before that.
func again(ctx context.Context, tn turn, err error, n int, begun time.Time) bool {
	tried := time.Since(begun)
	if !inTheWay(err) || n >= auditTries && tried > min(auditPatience, tn.led.left()) || ctx.Err() != nil || tn.led.alive() != nil {
		return false
	}
	time.Sleep(rand.N(time.Millisecond + min(tried, 32*time.Millisecond)))
	return true
}

// writeAgain calls f, which writes a row, and repeats that while other sessions
// make it fail.
func writeAgain(tn turn, f func(ctx context.Context) error) (err error) {
	begun := time.Now()
	for n := 1; ; n++ {
		if err = tn.do(context.Background(), f); err == nil || !again(context.Background(), tn, err, n, begun) {
			return err
		}
	}
}

// closeStaleRows closes the audit's rows of holders that are dead, as the grants
// with the rows granted have proven.
func closeStaleRows(tn turn, schema string, granted ...int64) error {
	ids := array(granted, func(id int64) int64 { return id })
	return tn.writing(func() error {
		err := writeAgain(tn, func(ctx context.Context) error { return tn.auditIn(schema).CloseDead(ctx, ids) })
		if err != nil && sqlState(err) == "" && !notSent(err) {
			tn.destroy(err)
		}
		return err
	})
}

// auditReleased closes the row of a lock whose ReleaseAudited has failed. The
// statement that unlocked it began at the time at, in microseconds since 1970, or
// longAgo if that is not known: then the interval ends when the lock was last
// proven, and so before the next begins.
func auditReleased(tn turn, h *hold, at int64, reason string) error {
	return writeAgain(tn, func(ctx context.Context) error {
		return tn.auditIn(h.schema).AuditReleased(ctx, db.AuditReleasedParams{AuditID: h.audit, At: at, EndReason: reason})
	})
}

const longAgo = 0

// auditLost corrects the row of a lock that the session did not hold any more
// when it was released.
func auditLost(tn turn, h *hold) error {
	return writeAgain(tn, func(ctx context.Context) error { return tn.auditIn(h.schema).AuditLost(ctx, h.audit) })
}

// endReason returns the end_reason of a row of the audit.
func endReason(expired bool) string {
	if expired {
		return "expired"
	}
	return "released"
}

// aborted adds to err that it has made the caller's transaction fail.
func aborted(err error) error { return fmt.Errorf("%w: %w", ErrAbortedTransaction, err) }

// defaultSchema is the schema of the audit's table in queries/audit.sql.
const defaultSchema = "public"

// auditIn returns the statements of the audit, for a table in schema, which is
// quoted where it must be. They name the table's schema, since the search_path
// would find a temporary table of that name first.
func (a *access) auditIn(schema string) *db.Queries {
	if schema == defaultSchema {
		return a.q
	}
	return db.New(db.Rewrite(a.conn, func(query string) string { return located(query, schema) }))
}

// A location is a statement and the schema of its table.
type location struct{ query, schema string }

// locatedAt has the text for each location, map[location]string. It stays
// small, since few schemas have an audit.
var locatedAt sync.Map

// located returns a statement of the audit for the table in schema.
func located(query, schema string) string {
	key := location{query, schema}
	if text, ok := locatedAt.Load(key); ok {
		return text.(string)
	}
	text := strings.ReplaceAll(query, defaultSchema+".lock_audit", schema+".lock_audit")
	locatedAt.Store(key, text)
	return text
}
