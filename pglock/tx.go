package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// TryAcquireTx takes the lock for the rest of the transaction, if it is free now.
// The end of the transaction frees it, by commit and by rollback alike, so there
// is nothing to release, and nothing is left behind by a crash. A rollback to a
// savepoint that was there before frees it as well.
//
// The lock and those of sessions, Pools and SwanLake servers on the same target
// exclude each other. It needs no session of its own, so it works behind a pooler
// in transaction mode, as PgBouncer's.
//
// It honours WithOwner, WithShared and WithFence. The fence is safe from a crash
// of the server once the transaction has committed; the transaction must not have
// written before (ErrFenceInTransaction). WithTTL, WithAutoRefresh and whatever
// else a transaction cannot keep is refused with an error that matches
// errors.ErrUnsupported. Unlike other locks these stack: a transaction whose own
// session has the target already gets it.
//
// There is no audit. Nobody could see its row while the lock is held, a rollback
// would take the row back, and when the lock was freed is not known to anybody who
// could write it. A row of your own in the same transaction is there if, and only
// if, the work that the lock guarded is.
//
// What the transaction reads may be older than the grant under REPEATABLE READ and
// SERIALIZABLE, whose snapshot is that of the first statement, this one: use READ
// COMMITTED.
//
// After ErrNotAcquired and whatever was refused before it was sent the transaction
// goes on; after another error of the server it has failed, and must be rolled
// back. Nothing is held in either case. It takes one round trip, and one more with
// lib/pq and the first time with pgx.
func TryAcquireTx(ctx context.Context, tx *sql.Tx, target string, opts ...swanlock.Option) (swanlock.Info, error) {
	return txLock{tx: tx}.acquire(ctx, target, opts, txLock.try)
}

// AcquireTx waits for the lock until ctx ends. See TryAcquireTx.
//
// It waits in the server, for 0.9 s at a time (nine tenths of deadlock_timeout),
// each behind a savepoint, so that the end of a wait does not fail the transaction:
// three round trips for each, and two more at first. PostgreSQL logs each wait that
// has ended as a lock timeout. The transaction has no place in the line of
// sessions and Pools: it is served in the order of the server's own queue, beside
// the first of that line, and goes back to the end of the queue with each wait. So
// it may overtake others, and others may overtake it. No wait lasts until the server
// would look for a deadlock: two transactions that wait for each other's targets do
// so until the first of their contexts ends. Take several targets in one order.
//
// Where statement_timeout or pg_cancel_backend ends a wait WithFence just after its
// grant, the transaction has its id, and AcquireTx returns ErrFenceInTransaction.
//
// If ctx is cancelled meanwhile, AcquireTx returns when the wait has ended, and the
// transaction goes on. While it waits, the transaction is open, with all that it
// holds: acquire before you write.
func AcquireTx(ctx context.Context, tx *sql.Tx, target string, opts ...swanlock.Option) (swanlock.Info, error) {
	return txLock{tx: tx}.acquire(ctx, target, opts, txLock.wait)
}

// A txLock is a lock that a transaction wants.
type txLock struct {
	tx *sql.Tx
	q  *db.Queries
	r  request
}

func (l txLock) acquire(ctx context.Context, target string, opts []swanlock.Option, how func(txLock, context.Context) (int64, error)) (info swanlock.Info, err error) {
	if l.r, err = check(target, opts); err != nil {
		return info, err
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("pglock: acquire %s: %w", quote(target), err)
		}
	}()
	switch {
	case l.tx == nil:
		return info, errors.New("the transaction is nil")
	case l.r.TTL > 0:
		return info, fmt.Errorf("WithTTL: %w: the lock lasts as long as its transaction", errors.ErrUnsupported)
	case ctx.Err() != nil:
		return info, notAcquired(ctx)
	}
	l.q = db.New(db.On(l.tx))
	began := time.Now()
	answer, err := how(l, ctx)
	if err != nil {
		return info, explain(err, false)
	}
	if answer < 0 {
		return info, refusal(answer)
	}
	return swanlock.Info{Target: target, Owner: l.r.Owner, AcquiredAt: began, Fence: uint64(answer), Shared: l.r.Shared}, nil
}

// bounded returns a context for a statement that ends later than ctx, by as much as
// the statement may wait, and tidying: a driver that cancels one may end the session,
// and with it the transaction.
func bounded(ctx context.Context, wait time.Duration) (context.Context, context.CancelFunc) {
	bound, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() {
		timer := time.NewTimer(wait + tidying)
		defer timer.Stop()
		select {
		case <-timer.C:
			cancel(context.Cause(ctx))
		case <-bound.Done():
		}
	})
	return bound, func() { stop(); cancel(nil) }
}

func (l txLock) try(ctx context.Context) (int64, error) {
	ctx, cancel := bounded(ctx, 0)
	defer cancel()
	return l.q.TryAcquireTx(ctx, db.TryAcquireTxParams{Fence: l.r.Fence, Shared: l.r.Shared, Key: int64(l.r.key)})
}

func (l txLock) wait(ctx context.Context) (int64, error) {
	answer, err := l.try(ctx)
	if err != nil || answer != heldElsewhere {
		return answer, err
	}
	bound, cancel := bounded(ctx, maxServerWait)
	defer cancel()
	deadlock, err := l.q.DeadlockTimeout(bound)
	if err != nil {
		return 0, err
	}
	for most := maxWait(time.Duration(deadlock) * time.Millisecond); ; {
		if ctx.Err() != nil {
			return 0, notAcquired(ctx)
		}
		answer, timedOut, err := l.waitOnce(bound, before(ctx, most))
		if !timedOut {
			return answer, err
		}
	}
}

// waitOnce waits for slice at most. timedOut says that the server ended the wait,
// perhaps because of the role's statement_timeout. Whatever the error, the
// transaction is as it was before, unless it has failed.
func (l txLock) waitOnce(ctx context.Context, slice time.Duration) (answer int64, timedOut bool, err error) {
	const savepoint = "SAVEPOINT swanlock_wait"
	if _, err := l.tx.ExecContext(ctx, savepoint); err != nil {
		return 0, false, err
	}
	answer, err = l.q.AcquireTx(ctx, db.AcquireTxParams{Slice: strconv.FormatInt(milliseconds(slice), 10),
		Shared: l.r.Shared, Key: int64(l.r.key), Fence: l.r.Fence})
	end := "RELEASE " + savepoint
	if err != nil { // A rollback also frees the lock, should it have been granted all the same.
		end = "ROLLBACK TO " + savepoint + "; RELEASE " + savepoint
	}
	if _, failed := l.tx.ExecContext(ctx, end); failed != nil {
		return 0, false, errors.Join(err, failed)
	}
	return answer, waitEnded(err), err
}
