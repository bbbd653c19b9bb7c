package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// behindALockedTable locks the audit's table, calls begin, and looks after a while
// whether locks that the pool has meanwhile are refreshed.
func behindALockedTable(t *testing.T, o observer, p *pglock.Pool, begin func()) {
	t.Helper()
	behind(t, "LOCK TABLE lock_audit IN ACCESS EXCLUSIVE MODE", o, p, begin)
}

// behind does so with the lock that a statement takes.
func behind(t *testing.T, lock string, o observer, p *pglock.Pool, begin func()) {
	t.Helper()
	var kept []swanlock.DistributedLock
	for range 4 {
		kept = append(kept, acquired(t, p, newTarget(t), swanlock.WithTTL(8*time.Second), swanlock.WithAutoRefresh()))
	}
	tx, err := o.db.BeginTx(bg, nil)
	must(t, err)
	defer tx.Rollback()
	run(t, tx, lock)
	began := time.Now()
	begin()
	time.Sleep(time.Until(began.Add(14 * time.Second)))
	keepsAll(t, o, kept)
	must(t, tx.Rollback())
	releaseMany(t, kept)
}

// TestPoolOfReadersBehindALockedTable: readers that come to others at once wait for the
// locked table no longer than one does.
func TestPoolOfReadersBehindALockedTable(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		p := newPool(t, openDB(t, driver, dbname), pglock.WithAudit(), pglock.WithLogger(nil), pglock.WithMaxSessions(1))
		target := newTarget(t)
		reader := acquired(t, p, target, swanlock.WithShared())
		var calls sync.WaitGroup
		behindALockedTable(t, o, p, func() {
			for range 16 {
				calls.Go(func() {
					_, err := p.TryAcquire(bg, target, swanlock.WithShared())
					wantErr(t, "TryAcquire", err, pglock.ErrAudit)
				})
			}
		})
		calls.Wait()
		must(t, reader.Release(bg))
		o.wantHeld(target)
	})
}

// TestPoolOfWaitersBehindALockedTable: of waiters whose locks are free one waits for the
// locked table, and the others go on waiting for their locks.
func TestPoolOfWaitersBehindALockedTable(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		p := newPool(t, openDB(t, driver, dbname), pglock.WithAudit(), pglock.WithLogger(nil), pglock.WithMaxSessions(1))
		other := pglock.NewSession(dial(t, driver, dbname))
		const n = 16
		var held []swanlock.DistributedLock
		var calls sync.WaitGroup
		ctx, cancel := context.WithTimeout(bg, time.Minute)
		defer cancel()
		for range n {
			target := newTarget(t)
			held = append(held, acquired(t, other, target))
			calls.Go(func() {
				l, err := p.Acquire(ctx, target)
				if err == nil {
					err = l.Release(bg)
				}
				if err != nil && !errors.Is(err, pglock.ErrAudit) {
					t.Errorf("a waiter: %v", err)
				}
			})
		}
		eventually(t, "all wait in line", func() bool { return p.Stats().Waiters == n })
		behindALockedTable(t, o, p, func() { releaseMany(t, held) })
		calls.Wait()
		for _, l := range held {
			o.wantHeld(l.Info().Target)
		}
	})
}

// TestPoolAuditOfAShortTransactionTimeout: what the role or the database has set as
// transaction_timeout ends no session of a Pool that waits for the locked table.
func TestPoolAuditOfAShortTransactionTimeout(t *testing.T) {
	needsTransactionTimeout(t)
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		db := openDB(t, driver, dbname, "transaction_timeout=500")
		db.SetMaxOpenConns(1)
		p, err := pglock.NewPool(db, pglock.WithAudit(), pglock.WithLogger(nil))
		must(t, err)
		kept := acquired(t, p, newTarget(t))
		tx, err := o.db.BeginTx(bg, nil)
		must(t, err)
		run(t, tx, "LOCK TABLE lock_audit IN ACCESS EXCLUSIVE MODE")
		_, err = p.TryAcquire(bg, newTarget(t))
		wantIs(t, err, pglock.ErrAudit)
		keepsAll(t, o, []swanlock.DistributedLock{kept})
		must(t, tx.Rollback())
		must(t, kept.Release(bg))
		must(t, p.Close(bg))
		wantSetting(t, db, "transaction_timeout", "500ms")
	})
}

func wantSetting(t *testing.T, db *sql.DB, name, want string) {
	t.Helper()
	if got := one[string](t, db, "SHOW "+name); got != want {
		t.Errorf("%s is %s, want %s", name, got, want)
	}
}

// TestRowsInTheWayCostNoLock: while strangers make each row fail, for longer than a TTL,
// the session's locks are refreshed without theirs.
func TestRowsInTheWayCostNoLock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		o.triggerOn("BEFORE INSERT OR UPDATE", "IF new.owner = 'fails' OR TG_OP = 'UPDATE' THEN RAISE serialization_failure; END IF; RETURN new;")
		s := pglock.NewSession(dial(t, driver, dbname), pglock.WithAudit(), pglock.WithLogger(nil))
		var kept []swanlock.DistributedLock
		for range 2 {
			kept = append(kept, acquired(t, s, newTarget(t), swanlock.WithTTL(1500*time.Millisecond), swanlock.WithAutoRefresh()))
		}
		for begun := time.Now(); time.Since(begun) < 3*time.Second; {
			_, err := s.TryAcquire(bg, newTarget(t), swanlock.WithOwner("fails"))
			wantIs(t, err, pglock.ErrAudit)
			time.Sleep(300 * time.Millisecond)
		}
		keepsAll(t, o, kept)
		for _, l := range kept {
			wantIs(t, l.Release(bg), pglock.ErrAudit)
		}
	})
}

// TestPoolOfDroppedRowsInVain: the rows of a batch whose locks are given back, since a
// trigger has dropped one of them, are closed; where that waits, it waits for one.
func TestPoolOfDroppedRowsInVain(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname, o := auditDatabase(t)
		o.triggerOn("BEFORE INSERT OR UPDATE", `
			IF TG_OP = 'INSERT' THEN RETURN CASE WHEN new.owner = 'dropped' THEN NULL ELSE new END; END IF;
			PERFORM pg_advisory_xact_lock_shared(7, 7); RETURN new;`)
		p := newPool(t, openDB(t, driver, dbname), pglock.WithAudit(), pglock.WithLogger(nil), pglock.WithMaxSessions(1))
		var calls sync.WaitGroup
		behind(t, "SELECT pg_advisory_xact_lock(7, 7)", o, p, func() {
			for i := range 32 {
				owner := "written"
				if i%4 == 3 {
					owner = "dropped"
				}
				calls.Go(func() {
					if l, err := p.TryAcquire(bg, newTarget(t), swanlock.WithOwner(owner)); err == nil {
						_ = l.Release(bg)
					}
				})
			}
		})
		calls.Wait()
	})
}
