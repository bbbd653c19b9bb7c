package migratelock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/golang-migrate/migrate/v4"
	"github.com/golang-migrate/migrate/v4/database"
	"github.com/golang-migrate/migrate/v4/database/pgx/v5"
	"github.com/golang-migrate/migrate/v4/database/postgres"
	"github.com/golang-migrate/migrate/v4/database/stub"
	suite "github.com/golang-migrate/migrate/v4/database/testing"
	"github.com/golang-migrate/migrate/v4/source/iofs"

	"github.com/swanlake-io/swanlock"
	migratelock "github.com/swanlake-io/swanlock/adapters/migrate"
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

func open(t *testing.T, driver, database string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, strings.Replace(pgserver.Default().URL(), "/postgres?", "/"+database+"?", 1))
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// eachDriver has a database for each driver, and migrate's own driver for it.
func eachDriver(t *testing.T, f func(t *testing.T, db func() *sql.DB, driver func() database.Driver)) {
	for name, with := range map[string]func(*sql.DB) (database.Driver, error){
		"postgres": func(db *sql.DB) (database.Driver, error) { return postgres.WithInstance(db, &postgres.Config{}) },
		"pgx":      func(db *sql.DB) (database.Driver, error) { return pgx.WithInstance(db, &pgx.Config{}) },
	} {
		t.Run(name, func(t *testing.T) {
			admin, dbname := open(t, name, "postgres"), fmt.Sprintf("migrate_%s_%d", name, time.Now().UnixNano())
			_, err := admin.Exec("CREATE DATABASE " + dbname)
			must(t, err)
			f(t, func() *sql.DB { return open(t, name, dbname) }, func() database.Driver {
				d, err := with(open(t, name, dbname))
				must(t, err)
				return d
			})
		})
	}
}

func newPool(t *testing.T, db *sql.DB) *pglock.Pool {
	t.Helper()
	p, err := pglock.NewPool(db)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close(context.Background())) })
	return p
}

func newMigrate(t *testing.T, d database.Driver) *migrate.Migrate {
	t.Helper()
	files := fstest.MapFS{}
	for i := range 5 {
		files[fmt.Sprintf("%d_m.up.sql", i+1)] = &fstest.MapFile{Data: fmt.Appendf(nil, "CREATE TABLE m%d (n int); SELECT pg_sleep(0.02)", i)}
	}
	source, err := iofs.New(files, ".")
	must(t, err)
	m, err := migrate.NewWithInstance("iofs", source, "test", d)
	must(t, err)
	return m
}

// TestOneHostMigrates: of several hosts that migrate at the same time one does
// it, and the others find nothing left to do.
func TestOneHostMigrates(t *testing.T) {
	eachDriver(t, func(t *testing.T, db func() *sql.DB, driver func() database.Driver) {
		var did atomic.Int32
		var wg sync.WaitGroup
		for range 4 {
			m := newMigrate(t, migratelock.Wrap(driver(), newPool(t, db()), t.Name(), migratelock.WithTimeout(time.Minute)))
			m.LockTimeout = 2 * time.Minute
			wg.Go(func() {
				switch err := m.Up(); {
				case err == nil:
					did.Add(1)
				case !errors.Is(err, migrate.ErrNoChange):
					t.Error(err)
				}
				if serr, derr := m.Close(); serr != nil || derr != nil {
					t.Error(serr, derr)
				}
			})
		}
		wg.Wait()
		if did.Load() != 1 {
			t.Errorf("%d hosts migrated", did.Load())
		}
	})
}

// TestSuite: golang-migrate's own tests of a driver, on the wrapped ones.
func TestSuite(t *testing.T) {
	eachDriver(t, func(t *testing.T, db func() *sql.DB, driver func() database.Driver) {
		d := migratelock.Wrap(driver(), newPool(t, db()), t.Name())
		suite.Test(t, d, []byte("SELECT 1"))
		must(t, d.Close())
	})
}

func newStub(t *testing.T) database.Driver {
	t.Helper()
	d, err := new(stub.Stub).Open("stub://")
	must(t, err)
	return d
}

func isFree(t *testing.T, locks swanlock.Locker) bool {
	t.Helper()
	held, err := locks.TryAcquire(context.Background(), "m")
	if err == nil {
		must(t, held.Release(context.Background()))
	}
	return err == nil
}

// TestDeadline: Lock gives up before migrate does, which would not take the
// lock that it got later back.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := memlock.New()
		other, err := locks.TryAcquire(t.Context(), "m")
		must(t, err)
		m := newMigrate(t, migratelock.Wrap(newStub(t), locks, "m"))
		if err := m.Up(); !errors.Is(err, database.ErrLocked) || !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want ErrLocked, ErrNotAcquired and the deadline", err)
		}
		must(t, other.Release(t.Context()))
		synctest.Wait()
		if !isFree(t, locks) {
			t.Error("what gave up has the lock")
		}
		must(t, m.Up())
		if !isFree(t, locks) {
			t.Error("the lock is held after Up")
		}
	})
}

// TestLateLock: with a timeout that is too long, migrate gives up first. Close
// frees the lock that came later, or ends the wait for it.
func TestLateLock(t *testing.T) {
	for _, first := range []string{"release", "close"} {
		synctest.Test(t, func(t *testing.T) {
			locks := memlock.New()
			other, err := locks.TryAcquire(t.Context(), "m")
			must(t, err)
			m := newMigrate(t, migratelock.Wrap(newStub(t), locks, "m", migratelock.WithTimeout(time.Minute)))
			if err := m.Up(); err != migrate.ErrLockTimeout {
				t.Errorf("got %v, want ErrLockTimeout", err)
			}
			closeIt := func() {
				if serr, derr := m.Close(); serr != nil || derr != nil {
					t.Error(serr, derr)
				}
				synctest.Wait()
			}
			if first == "close" {
				closeIt()
			}
			must(t, other.Release(t.Context()))
			synctest.Wait()
			if got := isFree(t, locks); got != (first == "close") {
				t.Errorf("%s first: the lock is free: %v", first, got)
			}
			if first == "release" {
				closeIt()
			}
			if !isFree(t, locks) {
				t.Error("the lock is held after Close")
			}
		})
	}
}

// A slow locker answers when it is told to, though its context has ended.
type slow struct {
	*memlock.Locker
	answer chan struct{}
}

func (s slow) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	<-s.answer
	return s.Locker.Acquire(context.WithoutCancel(ctx), target, opts...)
}

// TestErrors: a loss is told; what is opened has the same lock; a driver locks
// once, and not after Close.
func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := memlock.New()
		d, err := migratelock.Wrap(newStub(t), locks, "m", migratelock.WithLockOptions(swanlock.WithOwner("me")), migratelock.WithTimeout(time.Second)).Open("stub://")
		must(t, err)
		if err := d.Unlock(); err != database.ErrNotLocked {
			t.Errorf("got %v, want ErrNotLocked", err)
		}
		must(t, d.Lock())
		begin := time.Now()
		if err := d.Lock(); err != database.ErrLocked || isFree(t, locks) || time.Since(begin) != 0 {
			t.Errorf("a second Lock: got %v after %v", err, time.Since(begin))
		}
		_, err = locks.TryAcquire(t.Context(), "m")
		if want := `memlock: "m": not acquired: held by "me"`; err == nil || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
		locks.Lose("m", nil)
		if err := d.Unlock(); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
		other, err := locks.TryAcquire(t.Context(), "m")
		must(t, err)
		if err := d.Lock(); !errors.Is(err, database.ErrLocked) || time.Since(begin) != time.Second {
			t.Errorf("what is opened: got %v after %v", err, time.Since(begin))
		}
		waiting := migratelock.Wrap(newStub(t), locks, "m")
		got := make(chan error)
		go func() { got <- waiting.Lock() }()
		synctest.Wait()
		begin = time.Now()
		must(t, waiting.Close())
		if err := <-got; !errors.Is(err, database.ErrLocked) || time.Since(begin) != 0 {
			t.Errorf("Close while Lock waits: got %v after %v", err, time.Since(begin))
		}
		must(t, other.Release(t.Context()))

		late := slow{locks, make(chan struct{})}
		d = migratelock.Wrap(newStub(t), late, "m")
		go func() { got <- d.Lock() }()
		synctest.Wait()
		must(t, d.Close())
		close(late.answer)
		if err := <-got; !errors.Is(err, database.ErrLocked) || !isFree(t, locks) {
			t.Errorf("Lock that is answered after Close: got %v", err)
		}
		if err := migratelock.Wrap(newStub(t), locks, "\x00").Lock(); err == nil || errors.Is(err, database.ErrLocked) {
			t.Errorf("got %v, want the locker's error", err)
		}
	})
}

// TestNil: a locker that is nil is an error of each call. A panic would end the
// program, since migrate locks in a goroutine of its own.
func TestNil(t *testing.T) {
	if err := migratelock.Wrap(newStub(t), nil, "m", nil).Lock(); err == nil || errors.Is(err, database.ErrLocked) {
		t.Errorf("Lock: got %v, want an error that is not ErrLocked", err)
	}
}

// A losing driver loses the lock while its first migration runs.
type losing struct {
	database.Driver
	locks *memlock.Locker
	begun []int
}

func (l *losing) SetVersion(version int, dirty bool) error {
	if dirty {
		l.begun = append(l.begun, version)
	}
	return l.Driver.SetVersion(version, dirty)
}

func (l *losing) Run(migration io.Reader) error {
	l.locks.Lose("m", nil)
	return l.Driver.Run(migration)
}

// TestLossEndsUp: no migration begins without the lock, and what has run is noted.
func TestLossEndsUp(t *testing.T) {
	locks := memlock.New()
	d := &losing{Driver: newStub(t), locks: locks}
	wrapped := migratelock.Wrap(d, locks, "m")
	if err := newMigrate(t, wrapped).Up(); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Up: got %v, want ErrLost", err)
	}
	if len(d.begun) != 1 {
		t.Errorf("got the migrations %v, want the one that ran as the lock was lost", d.begun)
	}
	if version, dirty, err := d.Version(); version != 1 || dirty || err != nil {
		t.Errorf("Version: got %d, %t, %v, want 1, which is done", version, dirty, err)
	}
	must(t, newMigrate(t, migratelock.Wrap(d.Driver, locks, "m")).Up())
}

// Sessions lock each time as another session, as a Pool does.
type sessions struct{ *memlock.Locker }

func (s sessions) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return s.Session().Acquire(ctx, target, opts...)
}

// TestTwoWait: two calls wait, and the lock of the first is lost. The second must not
// put its lock in place of that one, which the first would unlock.
func TestTwoWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := memlock.New()
		other, err := locks.TryAcquire(t.Context(), "m")
		must(t, err)
		d := migratelock.Wrap(newStub(t), sessions{locks}, "m")
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- d.Lock() }()
		synctest.Wait()
		go func() { second <- d.Lock() }()
		synctest.Wait()
		must(t, other.Release(t.Context()))
		must(t, <-first)
		locks.Lose("m", nil)
		if err := <-second; !errors.Is(err, database.ErrLocked) {
			t.Errorf("the second Lock: got %v, want ErrLocked", err)
		}
		if err := d.Unlock(); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("Unlock of the first: got %v, want ErrLost", err)
		}
		if !isFree(t, locks) {
			t.Error("the lock is held after Unlock")
		}
	})
}

// TestUnlockAgain: an Unlock that could not free the lock may be called again, as
// Close does.
func TestUnlockAgain(t *testing.T) {
	locks := memlock.New()
	d := migratelock.Wrap(newStub(t), testserver.BusyOnce(locks), "m")
	must(t, d.Lock())
	if err := d.Unlock(); !errors.Is(err, testserver.ErrBusy) || isFree(t, locks) {
		t.Errorf("got %v, want %v", err, testserver.ErrBusy)
	}
	must(t, d.Close())
	if !isFree(t, locks) {
		t.Error("the lock is held after Close")
	}
}

// A failing driver can be neither opened nor closed.
type failing struct{ database.Driver }

var errDriver = errors.New("no such database")

func (failing) Open(string) (database.Driver, error) { return nil, errDriver }
func (failing) Close() error                         { return errDriver }

// TestDriverFails: errors of the driver and of the lock are told, and the lock is free.
func TestDriverFails(t *testing.T) {
	locks := memlock.New()
	d := migratelock.Wrap(failing{newStub(t)}, locks, "m")
	if opened, err := d.Open("stub://"); !errors.Is(err, errDriver) || opened != nil {
		t.Errorf("Open: got %v, %v, want %v", opened, err, errDriver)
	}
	must(t, d.Lock())
	locks.Lose("m", nil)
	if err := d.Close(); !errors.Is(err, errDriver) || !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Close: got %v, want %v and ErrLost", err, errDriver)
	}
	if !isFree(t, locks) {
		t.Error("the lock is held after Close")
	}
}
