package pglock_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

var _ lock.SessionLocker = (*pglock.MigrationLocker)(nil)

// TestMigrationLock: of several hosts that migrate at the same time one does it,
// and each migration is done once.
func TestMigrationLock(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param := newDatabase(t)
		o, target := observe(t, param), newTarget(t)
		files := fstest.MapFS{}
		for i := range 5 {
			files[fmt.Sprintf("%05d_m.sql", i+1)] = &fstest.MapFile{Data: fmt.Appendf(nil,
				"-- +goose Up\nCREATE TABLE m%d (n int);\nSELECT pg_sleep(0.02);\n-- +goose Down\nDROP TABLE m%d;\n", i, i)}
		}
		var mu sync.Mutex
		applied := make(map[int64]int)
		var wg sync.WaitGroup
		for range 4 {
			db := openDB(t, driver, param)
			p, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(pglock.MigrationLock(target)), goose.WithLogger(goose.NopLogger()))
			must(t, err)
			wg.Go(func() {
				done, err := p.Up(shortly(t))
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, r := range done {
					applied[r.Source.Version]++
				}
			})
		}
		wg.Wait()
		for v := int64(1); v <= 5; v++ {
			if applied[v] != 1 {
				t.Errorf("migration %d was applied %d times", v, applied[v])
			}
		}
		o.wantHeld(target)
	})
}

// TestMigrationLockOnConnections: one MigrationLocker serves several connections, is
// excluded by other locks of the target, tells a loss, and unlocks although its
// context has ended.
func TestMigrationLockOnConnections(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		m := pglock.MigrationLock(target)
		one, two := dial(t, driver), dial(t, driver)
		must(t, m.SessionLock(bg, one))
		got := make(chan error, 1)
		go func() { got <- m.SessionLock(shortly(t), two) }()
		o.wantTickets(target, 1)
		ctx, _ := cancelled()
		must(t, m.SessionUnlock(ctx, one))
		must(t, <-got)
		_, err := pglock.TryAcquire(bg, one, target)
		wantIs(t, err, swanlock.ErrNotAcquired)
		short, cancel := context.WithTimeout(bg, 50*time.Millisecond)
		defer cancel()
		wantIs(t, m.SessionLock(short, one), swanlock.ErrNotAcquired, context.DeadlineExceeded)
		rows, err := two.QueryContext(bg, manyRows)
		must(t, err)
		rows.Next()
		wantIs(t, m.SessionUnlock(bg, two), pglock.ErrBusy)
		must(t, rows.Close())
		must(t, m.SessionUnlock(bg, two)) // nothing was sent before
		o.wantHeld(target)
		must(t, m.SessionLock(bg, two))
		if err := m.SessionUnlock(bg, one); err == nil {
			t.Error("a connection without the lock is unlocked")
		}
		o.kill(pidOf(t, two))
		wantIs(t, m.SessionUnlock(bg, two), swanlock.ErrLost)
		o.wantSoonFree(target)
		wantIs(t, m.SessionLock(bg, closedConn(t, driver)), sql.ErrConnDone)
	})
}

func closedConn(t *testing.T, driver string) *sql.Conn {
	t.Helper()
	conn, err := openDB(t, driver).Conn(bg)
	must(t, err)
	must(t, conn.Close())
	return conn
}
