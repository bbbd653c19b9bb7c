package gooselock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/pressly/goose/v3"

	"github.com/swanlake-io/swanlock"
	gooselock "github.com/swanlake-io/swanlock/adapters/goose"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/pglock"
)

func TestMain(m *testing.M) { pgserver.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, driver string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, pgserver.Default().URL())
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

func newPool(t *testing.T, db *sql.DB) *pglock.Pool {
	t.Helper()
	p, err := pglock.NewPool(db)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close(context.Background())) })
	return p
}

func provider(t *testing.T, db *sql.DB, l *gooselock.Locker, table string) *goose.Provider {
	t.Helper()
	files := fstest.MapFS{}
	for i := range 5 {
		files[fmt.Sprintf("%05d_m.sql", i+1)] = &fstest.MapFile{Data: fmt.Appendf(nil,
			"-- +goose Up\nCREATE TABLE %s%d (n int);\nSELECT pg_sleep(0.02);\n-- +goose Down\nDROP TABLE %[1]s%[2]d;\n", table, i)}
	}
	p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithLocker(l),
		goose.WithTableName(table+"_version"), goose.WithLogger(goose.NopLogger()))
	must(t, err)
	return p
}

// TestOneHostMigrates: of several hosts that migrate at the same time one does
// it, and the others find nothing left to do. The lock is on the database that
// is migrated, and on the same *sql.DB.
func TestOneHostMigrates(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			table := fmt.Sprintf("%s_%d_", driver, time.Now().UnixNano())
			var applied atomic.Int32
			var wg sync.WaitGroup
			for range 4 {
				db := open(t, driver)
				db.SetMaxOpenConns(2)
				p := provider(t, db, gooselock.New(newPool(t, db), t.Name()), table)
				wg.Go(func() {
					done, err := p.Up(t.Context())
					if err != nil {
						t.Error(err)
					}
					applied.Add(int32(len(done)))
				})
			}
			wg.Wait()
			if got := applied.Load(); got != 5 {
				t.Errorf("%d migrations were applied, want 5", got)
			}
		})
	}
}

// TestOneConnection: a db that allows one connection has none for a Pool of
// locks. goose waits until its deadline, and nothing is held then.
func TestOneConnection(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			db := open(t, driver)
			db.SetMaxOpenConns(1)
			must(t, db.Ping()) // goose is to have its connection before the deadline
			pool := newPool(t, db)
			p := provider(t, db, gooselock.New(pool, t.Name()), driver+"_one")
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			defer cancel()
			if _, err := p.Up(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("got %v, want ErrNotAcquired and the deadline", err)
			}
			held, err := pool.TryAcquire(t.Context(), t.Name())
			must(t, err)
			must(t, held.Release(t.Context()))
		})
	}
}

// TestUnlock: one Locker serves several databases and providers; Unlock frees
// the lock although its context has ended; a loss is told, and costs the next
// holder nothing.
func TestUnlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := memlock.New()
		l := gooselock.New(locks, "m")
		one, two := new(sql.DB), new(sql.DB)
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		free := func() bool {
			held, err := locks.TryAcquire(t.Context(), "m")
			if err == nil {
				must(t, held.Release(t.Context()))
			}
			return err == nil
		}

		must(t, l.Lock(t.Context(), one))
		if err := l.Unlock(t.Context(), two); err == nil || free() {
			t.Errorf("Unlock of another database: %v", err)
		}
		got := make(chan error, 1)
		go func() { got <- l.Lock(t.Context(), two) }()
		synctest.Wait()
		must(t, l.Unlock(ended, one))
		must(t, <-got)
		if err := l.Unlock(t.Context(), one); err == nil || free() {
			t.Errorf("a second Unlock: %v", err)
		}
		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.Lock(short, one); !errors.Is(err, context.DeadlineExceeded) || l.Unlock(t.Context(), one) == nil {
			t.Errorf("Lock with a deadline: %v", err)
		}

		// Another provider on the same database waits for the Unlock of the one that has
		// lost the lock, so each is told of its own lock.
		locks.Lose("m", nil)
		go func() { got <- l.Lock(t.Context(), two) }()
		synctest.Wait()
		if err := l.Unlock(t.Context(), two); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("Unlock after a loss: %v", err)
		}
		must(t, <-got)
		if free() {
			t.Error("the lock is free")
		}
		must(t, l.Unlock(t.Context(), two))
		if !free() {
			t.Error("the lock is still held")
		}
	})
}

// TestEachIsToldOfItsOwn: of two providers on one database the first loses the lock,
// and the second is done before it. The loss is told to the first, and the second's
// lock is free when it is done.
func TestEachIsToldOfItsOwn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks, db := memlock.New(), new(sql.DB)
		l := gooselock.New(locks, "m")
		migrate := func(takes time.Duration, told chan<- error) {
			if err := l.Lock(t.Context(), db); err != nil {
				t.Error(err)
			}
			time.Sleep(takes)
			told <- l.Unlock(t.Context(), db)
		}
		first, second := make(chan error, 1), make(chan error, 1)
		go migrate(time.Hour, first)
		synctest.Wait()
		go migrate(time.Minute, second)
		synctest.Wait()
		locks.Lose("m", nil)
		if err := <-second; err != nil {
			t.Errorf("the second was told %v", err)
		}
		if held, err := locks.TryAcquire(t.Context(), "m"); err != nil {
			t.Errorf("the second's lock after its Unlock: %v", err)
		} else {
			must(t, held.Release(t.Context()))
		}
		if err := <-first; !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("the first, which has lost the lock, was told %v", err)
		}
	})
}

// TestUnlockAgain: an Unlock that could not free the lock may be called again.
func TestUnlockAgain(t *testing.T) {
	locks, db := memlock.New(), new(sql.DB)
	l := gooselock.New(testserver.BusyOnce(locks), "m", swanlock.WithOwner("me"))
	must(t, l.Lock(t.Context(), db))
	if _, err := locks.TryAcquire(t.Context(), "m"); err == nil || !strings.Contains(err.Error(), `held by "me"`) {
		t.Errorf("got %v, want that it is held by me", err)
	}
	if err := l.Unlock(t.Context(), db); !errors.Is(err, testserver.ErrBusy) {
		t.Errorf("got %v, want %v", err, testserver.ErrBusy)
	}
	must(t, l.Unlock(t.Context(), db))
	if err := l.Unlock(t.Context(), db); err == nil {
		t.Error("Unlock of what is not locked: got nil, want an error")
	}
	held, err := locks.TryAcquire(t.Context(), "m")
	must(t, err)
	must(t, held.Release(t.Context()))
}

// TestNil: a locker that is nil is an error of each call.
func TestNil(t *testing.T) {
	if err := gooselock.New(nil, "m").Lock(t.Context(), nil); err == nil {
		t.Error("Lock: got nil, want an error")
	}
}
