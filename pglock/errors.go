package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/quoted"
	"github.com/swanlake-io/swanlock/internal/sqlstate"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// Errors that say what is wrong with the server or the connection. An acquire
// that fails with one of them holds nothing.
var (
	// ErrStandby says that the server is read-only. A standby has advisory
	// locks of its own, which exclude nobody on the primary.
	ErrStandby = errors.New("the server is a standby, or read-only: connect to the primary")

	// ErrPooler says that another backend answered than the one that granted
	// the lock: a pooler in transaction or statement mode stands between.
	ErrPooler = errors.New("another backend answered: connect to PostgreSQL itself, or to a pooler in session mode")

	// ErrAbortedTransaction says that the connection is in a transaction that
	// failed. A lock that was held before is still held, unless it was the acquire
	// that made the transaction fail: what that may have taken cannot be unlocked,
	// so the session was ended.
	ErrAbortedTransaction = errors.New("the connection's transaction has failed: roll it back first")

	// ErrFenceInTransaction says that a fence was asked for in a transaction
	// that has its transaction id already: the fence would be older than the
	// grant.
	ErrFenceInTransaction = errors.New("no fence in a transaction that has written: acquire before it begins, or without WithFence")

	// ErrLockTableFull says that the server has no memory for another lock.
	ErrLockTableFull = errors.New("the server's lock table is full: hold fewer locks, or raise max_locks_per_transaction")

	// ErrPoolFull says that a Pool holds as many locks as it may: its sessions
	// are full, or its locks fill half of the server's lock table. If that
	// table were full, no client could connect to the server any more.
	ErrPoolFull = errors.New("the pool holds all the locks that it may: release some, or raise max_locks_per_transaction")

	// ErrAudit says that the audit's row could not be written to lock_audit.
	ErrAudit = errors.New("the audit could not be written")

	// ErrDenied says that the role may not do what the lock needs.
	ErrDenied = errors.New("the role is not allowed to take advisory locks")

	// ErrBusy says that the connection's owner is reading rows from it. Nothing
	// was sent, and what was held is still held: close the Rows first, or take
	// locks on a connection that is used for nothing else.
	ErrBusy = oneconn.ErrBusy

	// errPretends is the error of an engine that speaks PostgreSQL's protocol, and
	// whose advisory locks exclude nobody.
	errPretends = fmt.Errorf("this server grants each advisory lock to everybody (CockroachDB, or YugabyteDB with "+
		"yb_silence_advisory_locks_not_supported_error): use the package leaselock, or PostgreSQL: %w", errors.ErrUnsupported)

	// errUnflushed is the error of a grant with a fence that was cancelled
	// while it waited for its commit to be flushed: after a failover the server
	// might give the same fence again.
	errUnflushed error = unflushed{}

	// errUnwritten is the error of a grant whose row was dropped without an error.
	// The statement succeeded, so the session lives.
	errUnwritten error = unwritten{}

	// errReadOnly says that a row was not sent, since the connection's owner has a
	// transaction open that is read-only.
	errReadOnly = fmt.Errorf("%w: the connection's transaction is read-only", ErrAudit)

	errPoolClosed  = errors.New("the pool is closed")
	errSessionGone = errors.New("the pool's session is gone")

	errNotHeld = errors.New("the session does not hold it any more")
	errDropped = errors.New("its handle was dropped without Release")
	errEnded   = fmt.Errorf("the session had locks that are lost, so it was ended: take another connection: %w", sql.ErrConnDone)
	errClosed  = fmt.Errorf("its connection was closed before Release: %w", sql.ErrConnDone)
)

// The SQLSTATEs that this package distinguishes.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
const (
	noData                     = "02000"
	notInEncoding              = "22021"
	untranslatableCharacter    = "22P05"
	readOnlyTransaction        = "25006"
	inFailedTransaction        = "25P02"
	idleInTransaction          = "25P03" // the server has ended the session, as with the next
	transactionTooLong         = "25P04"
	noPreparedStatement        = "26000"
	noSchema                   = "3F000"
	insufficientPrivilege      = "42501"
	syntaxError                = "42601"
	noColumn                   = "42703"
	noObject                   = "42704"
	noFunction                 = "42883"
	notSupported               = "0A000"
	noTable                    = "42P01"
	duplicatePreparedStatement = "42P05"
	diskFull                   = "53100"
	outOfMemory                = "53200"
	serializationFailure       = "40001"
	deadlockDetected           = "40P01"
	lockNotAvailable           = "55P03"
	queryCanceled              = "57014"
	adminShutdown              = "57P01" // also that of pg_terminate_backend
)

type unflushed struct{}

func (unflushed) Error() string {
	return "the fence was not flushed in time: is a synchronous standby away?"
}

func (unflushed) SQLState() string { return queryCanceled }

type unwritten struct{}

func (unwritten) Error() string    { return "lock_audit took no row: has it a trigger that returns NULL?" }
func (unwritten) SQLState() string { return noData }

func sqlState(err error) string { return sqlstate.Of(err) }

// explain adds to a driver's error what it means here.
func explain(err error, audited bool) error {
	switch state := sqlState(err); {
	case state == inFailedTransaction:
		return fmt.Errorf("%w: %w", ErrAbortedTransaction, err)
	case state == readOnlyTransaction && audited && !errors.Is(err, ErrAbortedTransaction): // Otherwise it was one of the caller's.
		return fmt.Errorf("%w: %w: %w", ErrAudit, ErrStandby, err)
	case state == readOnlyTransaction && !audited:
		return fmt.Errorf("%w: %w", ErrStandby, err)
	case state == noPreparedStatement, state == duplicatePreparedStatement: // To prepare it again did not help.
		return fmt.Errorf("%w: %w", ErrPooler, err)
	case state == outOfMemory:
		return fmt.Errorf("%w: %w", ErrLockTableFull, err)
	case audited && (state == noTable || state == noColumn || state == noSchema):
		return fmt.Errorf("%w: run the lock_audit migration (swanlock migrate up): %w", ErrAudit, err)
	case audited && (state == untranslatableCharacter || state == notInEncoding):
		return fmt.Errorf("%w: the database's encoding does not have what is in the target or the owner: use names that it has, or a database in UTF8: %w", ErrAudit, err)
	case audited && state == insufficientPrivilege:
		return fmt.Errorf("%w: grant SELECT, INSERT and UPDATE on lock_audit: %w", ErrAudit, err)
	case audited && (state == serializationFailure || state == deadlockDetected):
		return fmt.Errorf("%w: other sessions made it fail again and again: %w", ErrAudit, err)
	case audited && waitEnded(err):
		return fmt.Errorf("%w in time: somebody has locked the table, or a timeout of the role is too short: %w", ErrAudit, err)
	case state == insufficientPrivilege:
		return fmt.Errorf("%w: %w", ErrDenied, err)
	case state == notSupported && !audited: // In an audited statement it may be about the table.
		return fmt.Errorf("the server has no advisory locks: %w: %w", errors.ErrUnsupported, err)
	case audited && !cutOff(err) && !strings.HasPrefix(state, "XX"): // by a constraint or a trigger of the table's, perhaps
		return fmt.Errorf("%w: %w", ErrAudit, err)
	}
	return err
}

// lost returns the error of a lock that ended without Release.
func lost(cause error) error { return fmt.Errorf("%w: %w", swanlock.ErrLost, cause) }

// cutOff reports whether err says no more than that the connection has ended.
func cutOff(err error) bool {
	state := sqlState(err)
	return state == "" || strings.HasPrefix(state, "57P") || strings.HasPrefix(state, "08") || state == idleInTransaction || state == transactionTooLong
}

// waitEnded reports whether err says that the server has ended a wait, whatever the
// wait was for.
func waitEnded(err error) bool {
	state := sqlState(err)
	return state == lockNotAvailable || state == queryCanceled
}

// notAcquired returns the error of an acquire whose context has ended.
func notAcquired(ctx context.Context) error {
	return fmt.Errorf("%w: %w", swanlock.ErrNotAcquired, context.Cause(ctx))
}

// quote returns target as errors and logs show it.
func quote(target string) string { return quoted.Text(target) }

// unanswered returns the error of an acquire whose context has ended, if that
// is why err says that no answer came in time, or that nothing was sent.
// Otherwise it returns err.
func unanswered(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, errLeft) || errors.Is(err, oneconn.ErrNotSent)) {
		return notAcquired(ctx)
	}
	return err
}

// errInTransaction says that nothing was sent, since the connection's owner has a
// transaction open.
var errInTransaction = errors.New("the connection's owner has a transaction open")

// notSent reports whether err says that nothing was sent.
func notSent(err error) bool {
	return errors.Is(err, oneconn.ErrNotSent) || errors.Is(err, ErrBusy) || errors.Is(err, errInTransaction)
}

// errLeft says that a caller stopped waiting for a call that goes on.
var errLeft = errors.New("the call is finished in the background")
