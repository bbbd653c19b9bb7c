package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

const (
	staleFence = "SWL01" // what lock_fence says
	noFence    = "SWL02" // what lock_fenced says
)

// codeOf returns the SQLSTATE of a driver's error.
func codeOf(err error) string {
	var e interface{ SQLState() string }
	if errors.As(err, &e) {
		return e.SQLState()
	}
	return ""
}

// guardedDatabase makes a database with the migrations and a table account, on
// which the trigger is, with one row.
func guardedDatabase(t *testing.T, args string) (param string, o observer) {
	t.Helper()
	param, o = auditDatabase(t)
	run(t, o.db, "CREATE TABLE account (id int PRIMARY KEY, fence bigint NOT NULL, balance int NOT NULL)")
	run(t, o.db, "INSERT INTO account VALUES (1, 0, 0)")
	run(t, o.db, "CREATE TRIGGER fenced BEFORE INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION lock_fenced("+args+")")
	return param, o
}

// fencedWrite is a write that carries its fence, in one round trip.
const fencedWrite = `UPDATE account SET fence = $2, balance = balance + 1 FROM lock_fence($1, $2) WHERE id = 1
	RETURNING account.fence`

// TestGuardRefusesALateWrite: the holder is paused until its lock is another's,
// which writes; what the first one then writes is refused.
func TestGuardRefusesALateWrite(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := guardedDatabase(t, "")
		db, target := openDB(t, driver, param), newTarget(t)
		key := int64(pglock.KeyOf(target))
		paused := acquired(t, pglock.NewSession(dial(t, driver, param)), target, swanlock.WithFence())
		write := func(l swanlock.DistributedLock) error {
			_, err := db.ExecContext(bg, fencedWrite, key, int64(l.Info().Fence))
			return err
		}
		must(t, write(paused))
		must(t, write(paused))
		o.kill(paused.BackendPID())
		next, err := pglock.NewSession(dial(t, driver, param)).Acquire(shortly(t), target, swanlock.WithFence())
		must(t, err)
		must(t, write(paused)) // nobody has written with a higher fence yet
		must(t, write(next))
		if err := write(paused); codeOf(err) != staleFence {
			t.Errorf("the late write: got %v, want %s", err, staleFence)
		}
		must(t, write(next))
		if got := one[int](t, o.db, "SELECT balance FROM account"); got != 5 {
			t.Errorf("there were %d writes, want 5", got)
		}
	})
}

// TestGuardWantsAFence: a write is refused without a fence, with a bad one, or
// with one for another key than the trigger names; what lock_fence has let in
// is out when the transaction ends, or is rolled back to a savepoint before it.
func TestGuardWantsAFence(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := guardedDatabase(t, "7")
		conn := dial(t, driver, param)
		refused := func(what, query, state string) {
			t.Helper()
			if _, err := conn.ExecContext(bg, query); codeOf(err) != state {
				t.Errorf("%s: got %v, want %s", what, err, state)
			}
		}
		for _, write := range []string{"UPDATE account SET balance = 1", "INSERT INTO account VALUES (2, 0, 0)", "DELETE FROM account"} {
			refused(write, write, noFence)
		}
		refused("another key", "UPDATE account SET balance = 1 FROM lock_fence(8, 1)", noFence)
		refused("a key that begins so", "UPDATE account SET balance = 1 FROM lock_fence(77, 1)", noFence)
		refused("no fence", "SELECT lock_fence(7, NULL)", "22023")
		refused("the fence of a lock without one", "SELECT lock_fence(7, 0)", "22023")
		run(t, conn, "UPDATE account SET balance = 1 FROM lock_fence(7, 5)")
		refused("after the transaction", "UPDATE account SET balance = 2", noFence)
		run(t, conn, "INSERT INTO account SELECT 2, 0, 0 FROM lock_fence(7, 5)")
		run(t, conn, "DELETE FROM account USING lock_fence(7, 5) WHERE id = 2")
		refused("a lower fence", "UPDATE account SET balance = 2 FROM lock_fence(7, 4)", staleFence)

		run(t, conn, "BEGIN")
		run(t, conn, "SAVEPOINT s")
		run(t, conn, "SELECT lock_fence(8, 1), lock_fence(7, 9)")
		run(t, conn, "UPDATE account SET balance = 3")
		run(t, conn, "ROLLBACK TO s")
		refused("after a rollback to the savepoint", "UPDATE account SET balance = 4", noFence)
		run(t, conn, "ROLLBACK")
		run(t, conn, "UPDATE account SET balance = 5 FROM lock_fence(7, 6)") // 9 was rolled back
		if got := one[int](t, o.db, "SELECT balance FROM account WHERE id = 1"); got != 5 {
			t.Errorf("the balance is %d, want 5", got)
		}

		// The functions find their table whatever the caller's search_path is.
		run(t, conn, "CREATE SCHEMA other")
		run(t, conn, "SET search_path = other")
		run(t, conn, "UPDATE public.account SET balance = 6 FROM public.lock_fence(7, 6)")
		run(t, conn, "RESET search_path")
		run(t, conn, "CREATE TRIGGER emptied BEFORE TRUNCATE ON account EXECUTE FUNCTION lock_fenced()")
		refused("TRUNCATE", "TRUNCATE account", noFence)
	})
}

// TestGuardRaces: holders write on when they have lost their locks, in each
// isolation, and no accepted write has a lower fence than the one before.
func TestGuardRaces(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := guardedDatabase(t, "")
		db, target := openDB(t, driver, param), newTarget(t)
		key := int64(pglock.KeyOf(target))
		run(t, o.db, "CREATE TABLE writes (n bigserial, was bigint NOT NULL, fence bigint NOT NULL)")
		var accepted, stale atomic.Int64
		tries := 50
		if testing.Short() {
			tries = 20
		}
		var wg sync.WaitGroup
		for range 4 {
			locker := pglock.NewSession(dial(t, driver, param))
			wg.Go(func() {
				for range tries {
					l, err := locker.Acquire(shortly(t), target, swanlock.WithFence())
					if err != nil {
						t.Error(err)
						return
					}
					lost := make(chan error, 1)
					time.AfterFunc(time.Duration(rand.IntN(4000))*time.Microsecond, func() { lost <- l.Release(bg) })
					for range 3 {
						switch err := guardedWrite(db, key, int64(l.Info().Fence)); codeOf(err) {
						case "":
							if err != nil {
								t.Errorf("the write: %v", err)
							}
							accepted.Add(1)
						case staleFence:
							stale.Add(1)
						case "40001", "40P01": // the row was another's meanwhile
						default:
							t.Errorf("the write: %v", err)
						}
					}
					if err := <-lost; err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if wrong := one[int](t, o.db, "SELECT count(*) FROM writes WHERE fence < was"); wrong > 0 {
			t.Errorf("%d writes of %d had a lower fence than the one before", wrong, accepted.Load())
		}
		if accepted.Load() == 0 || stale.Load() == 0 {
			t.Errorf("%d writes were accepted and %d refused: the test tests nothing", accepted.Load(), stale.Load())
		}
		t.Logf("%d accepted, %d refused", accepted.Load(), stale.Load())
	})
}

// guardedWrite writes in a transaction, and notes the fence that was there.
func guardedWrite(db *sql.DB, key, fence int64) error {
	levels := []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable}
	tx, err := db.BeginTx(context.Background(), &sql.TxOptions{Isolation: levels[rand.IntN(len(levels))]})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, q := range []string{
		"SELECT lock_fence($1, $2)",
		"WITH w AS (SELECT fence FROM account WHERE id = 1 AND $1::bigint IS NOT NULL FOR UPDATE) INSERT INTO writes (was, fence) SELECT fence, $2::bigint FROM w",
		"UPDATE account SET fence = $2, balance = balance + 1 WHERE id = 1 AND $1::bigint IS NOT NULL",
	} {
		if _, err := tx.ExecContext(bg, q, key, fence); err != nil {
			return err
		}
	}
	return tx.Commit()
}
