package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

func begin(t testing.TB, b interface {
	BeginTx(context.Context, *sql.TxOptions) (*sql.Tx, error)
}) *sql.Tx {
	t.Helper()
	tx, err := b.BeginTx(bg, nil)
	must(t, err)
	t.Cleanup(func() { tx.Rollback() })
	return tx
}

// works fails unless the transaction is as it should be: not failed, with the
// settings that it had.
func works(t testing.TB, tx *sql.Tx) {
	t.Helper()
	if got := one[string](t, tx, "SHOW lock_timeout"); got != "1234ms" {
		t.Errorf("lock_timeout is %s, want what it was", got)
	}
}

// TestTxExcludes: the lock of a transaction and those of all other kinds exclude
// each other, until it ends, in whichever way.
func TestTxExcludes(t *testing.T) {
	ends := map[string]func(t *testing.T, tx *sql.Tx){
		"commit":   func(t *testing.T, tx *sql.Tx) { must(t, tx.Commit()) },
		"rollback": func(t *testing.T, tx *sql.Tx) { must(t, tx.Rollback()) },
		"savepoint": func(t *testing.T, tx *sql.Tx) {
			run(t, tx, "ROLLBACK TO s")
			works(t, tx)
		},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		db := openDB(t, driver)
		for name, end := range ends {
			t.Run(name, func(t *testing.T) {
				o, target := observe(t), newTarget(t)
				others := []swanlock.Locker{newPool(t, openDB(t, driver))}
				for _, by := range acquirers {
					others = append(others, by.with(dial(t, driver)))
				}
				for _, acquire := range []func(context.Context, *sql.Tx, string, ...swanlock.Option) (swanlock.Info, error){pglock.TryAcquireTx, pglock.AcquireTx} {
					tx := begin(t, db)
					run(t, tx, "SET LOCAL lock_timeout = '1234ms'")
					pid := one[int](t, tx, "SELECT pg_backend_pid()")
					run(t, tx, "SAVEPOINT s")
					info, err := acquire(bg, tx, target, swanlock.WithOwner("me"))
					must(t, err)
					if info.Target != target || info.Owner != "me" || info.Fence != 0 || time.Since(info.AcquiredAt) > soon {
						t.Errorf("info %+v", info)
					}
					o.wantHeld(target, pid)
					works(t, tx)
					for _, l := range others {
						_, err := l.TryAcquire(bg, target)
						wantIs(t, err, swanlock.ErrNotAcquired)
					}
					second := begin(t, db)
					run(t, second, "SET LOCAL lock_timeout = '1234ms'")
					_, err = pglock.TryAcquireTx(bg, second, target)
					wantIs(t, err, swanlock.ErrNotAcquired)
					works(t, second)
					must(t, second.Rollback())
					end(t, tx)
					o.wantHeld(target)
					tx.Rollback()
				}
				for _, l := range others {
					held := acquired(t, l, target)
					tx := begin(t, db)
					_, err := pglock.TryAcquireTx(bg, tx, target)
					wantIs(t, err, swanlock.ErrNotAcquired)
					must(t, held.Release(bg))
					_, err = pglock.TryAcquireTx(bg, tx, target)
					must(t, err)
					must(t, tx.Rollback())
				}
			})
		}
	})
}

// TestTxWaits for the holder, longer than one wait in the server takes, without
// harm to the transaction; and for no longer than its context.
func TestTxWaits(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target, db := observe(t), newTarget(t), openDB(t, driver)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		tx := begin(t, db)
		run(t, tx, "CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT 7 AS n")
		run(t, tx, "SET LOCAL lock_timeout = '1234ms'")
		ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
		_, err := pglock.AcquireTx(ctx, tx, target)
		cancel()
		wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		works(t, tx)
		ctx, cause := cancelled()
		_, err = pglock.AcquireTx(ctx, tx, target)
		wantIs(t, err, swanlock.ErrNotAcquired, cause)
		ctx, cancel = context.WithCancel(bg)
		time.AfterFunc(100*time.Millisecond, cancel)
		_, err = pglock.AcquireTx(ctx, tx, target)
		wantIs(t, err, swanlock.ErrNotAcquired, context.Canceled)
		works(t, tx)
		o.wantHeld(target, held.BackendPID())

		pid := one[int](t, tx, "SELECT pg_backend_pid()")
		time.AfterFunc(1500*time.Millisecond, func() { held.Release(bg) })
		_, err = pglock.AcquireTx(shortly(t), tx, target)
		must(t, err)
		o.wantHeld(target, pid)
		works(t, tx)
		if n := one[int](t, tx, "SELECT n FROM kept"); n != 7 {
			t.Errorf("what was written before is %d", n)
		}
		must(t, tx.Commit())
		o.wantHeld(target)
	})
}

// TestTxSharedAndFence: readers hold it together; fences rise over transactions and
// sessions; a transaction that has written has none, and goes on.
func TestTxSharedAndFence(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target, db := newTarget(t), openDB(t, driver)
		session, _ := newSession(t, driver)
		reader := acquired(t, session, target, swanlock.WithShared())
		tx := begin(t, db)
		info, err := pglock.TryAcquireTx(bg, tx, target, swanlock.WithShared())
		must(t, err)
		if !info.Shared || info.Fence != 0 {
			t.Errorf("info %+v", info)
		}
		must(t, reader.Release(bg))
		_, err = session.TryAcquire(bg, target)
		wantIs(t, err, swanlock.ErrNotAcquired)
		must(t, tx.Commit())

		last := uint64(0)
		for i := range 10 {
			var info swanlock.Info
			switch i % 3 {
			case 0:
				held := acquired(t, session, target, swanlock.WithFence())
				info = held.Info()
				must(t, held.Release(bg))
			default:
				tx := begin(t, db)
				acquire := pglock.TryAcquireTx
				if i%3 == 2 { // behind a holder, so that the waiting statement gives the fence
					acquire = pglock.AcquireTx
					held := acquired(t, session, target)
					time.AfterFunc(50*time.Millisecond, func() { held.Release(bg) })
				}
				info, err = acquire(shortly(t), tx, target, swanlock.WithFence())
				must(t, err)
				must(t, tx.Commit())
			}
			if info.Fence <= last {
				t.Errorf("fence %d after %d", info.Fence, last)
			}
			last = info.Fence
		}

		tx = begin(t, db)
		run(t, tx, "SET LOCAL lock_timeout = '1234ms'")
		run(t, tx, "CREATE TEMPORARY TABLE written ON COMMIT DROP AS SELECT 1")
		_, err = pglock.TryAcquireTx(bg, tx, target, swanlock.WithFence())
		wantIs(t, err, pglock.ErrFenceInTransaction)
		works(t, tx)
	})
}

// TestTxRefuses what a transaction cannot keep, before anything is sent, and what
// the server refuses with one clear error.
func TestTxRefuses(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		db, target := openDB(t, driver), newTarget(t)
		tx := begin(t, db)
		run(t, tx, "SET LOCAL lock_timeout = '1234ms'")
		for name, opts := range map[string][]swanlock.Option{
			"TTL":               {swanlock.WithTTL(time.Minute)},
			"auto-refresh":      {swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh()},
			"fence of a reader": {swanlock.WithShared(), swanlock.WithFence()},
		} {
			if _, err := pglock.TryAcquireTx(bg, tx, target, opts...); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("%s: %v", name, err)
			}
		}
		for _, bad := range []string{"", "a\x00", "\xff"} {
			if _, err := pglock.AcquireTx(bg, tx, bad); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("target %q: %v", bad, err)
			}
		}
		if _, err := pglock.TryAcquireTx(bg, nil, target); err == nil {
			t.Error("a nil transaction is taken")
		}
		works(t, tx)
		tx.ExecContext(bg, "SELECT 1/0")
		for _, acquire := range []func(context.Context, *sql.Tx, string, ...swanlock.Option) (swanlock.Info, error){pglock.TryAcquireTx, pglock.AcquireTx} {
			_, err := acquire(bg, tx, target)
			wantIs(t, err, pglock.ErrAbortedTransaction)
		}
		must(t, tx.Rollback())
		_, err := pglock.TryAcquireTx(bg, tx, target)
		wantIs(t, err, sql.ErrTxDone)
	})
}

// TestTxRaces: transactions and sessions contend for one target, with contexts that
// end at any moment, and there is one holder at a time.
func TestTxRaces(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target, db := observe(t), newTarget(t), openDB(t, driver)
		db.SetMaxIdleConns(4)
		var holders, granted, refused atomic.Int32
		guarded := func() {
			if n := holders.Add(1); n != 1 {
				t.Errorf("%d hold it", n)
			}
			if seen := o.holders(target); len(seen) != 1 {
				t.Errorf("the server shows %v", seen)
			}
			granted.Add(1)
			holders.Add(-1)
		}
		tries := 60
		if testing.Short() {
			tries = 20
		}
		var wg sync.WaitGroup
		for i := range 4 {
			wg.Go(func() {
				for n := range tries {
					ctx, cancel := context.WithTimeout(bg, time.Duration(1+n%30)*time.Millisecond)
					tx, err := db.BeginTx(bg, nil)
					if err != nil {
						t.Error(err)
						cancel()
						return
					}
					_, err = pglock.AcquireTx(ctx, tx, target)
					switch {
					case err == nil:
						guarded()
					case errors.Is(err, swanlock.ErrNotAcquired):
						refused.Add(1)
						if _, err := tx.ExecContext(bg, "SELECT 1"); err != nil {
							t.Errorf("the transaction has failed: %v", err)
						}
					default:
						t.Error(err)
					}
					if i%2 == 0 {
						err = tx.Commit()
					} else {
						err = tx.Rollback()
					}
					if err != nil {
						t.Error(err)
					}
					cancel()
				}
			})
		}
		session, _ := newSession(t, driver)
		wg.Go(func() {
			for range tries {
				held, err := session.Acquire(shortly(t), target)
				if err != nil {
					t.Error(err)
					return
				}
				guarded()
				if err := held.Release(bg); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Wait()
		o.wantHeld(target)
		if granted.Load() == 0 || refused.Load() == 0 {
			t.Errorf("%d granted, %d refused: the test tests nothing", granted.Load(), refused.Load())
		}
	})
}

// TestTxBehindPgBouncer in transaction mode, where the locks of sessions are
// refused.
func TestTxBehindPgBouncer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		b := pgBouncer(t, "transaction")
		target := newTarget(t)
		one, two := b.conn(t, driver), b.conn(t, driver)
		first := begin(t, one)
		_, err := pglock.AcquireTx(bg, first, target)
		must(t, err)
		if n := len(b.direct.holders(target)); n != 1 {
			t.Errorf("%d hold it", n)
		}
		second := begin(t, two)
		_, err = pglock.TryAcquireTx(bg, second, target)
		wantIs(t, err, swanlock.ErrNotAcquired)
		got := make(chan error, 1)
		go func() {
			_, err := pglock.AcquireTx(shortly(t), second, target)
			got <- err
		}()
		time.Sleep(1200 * time.Millisecond)
		must(t, first.Commit())
		must(t, <-got)
		must(t, second.Commit())
		b.direct.wantHeld(target)
	})
}
