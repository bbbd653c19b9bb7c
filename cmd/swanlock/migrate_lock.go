package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/swanlake-io/swanlock/pglock"
)

// maxMigrationWait bounds the wait for another process that migrates.
const maxMigrationWait = 5 * time.Minute

// A migrationLock is a pglock.MigrationLocker that does not wait for ever. goose's
// own locker would be stranded if the connection turned out not to be one session,
// and waiting for it polls once a second.
type migrationLock struct{ *pglock.MigrationLocker }

func newMigrationLock(target string) migrationLock {
	return migrationLock{pglock.MigrationLock(target)}
}

func (l migrationLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	ctx, cancel := context.WithTimeoutCause(ctx, maxMigrationWait, errors.New("another process has been migrating for "+maxMigrationWait.String()))
	defer cancel()
	return l.MigrationLocker.SessionLock(ctx, conn)
}

// refusePooler refuses a pooler in transaction mode before anything is locked
// or prepared through it. Such a pooler shows when two connections share one
// backend, or when one connection has two. refusePooler asks more than once, as
// others may use the pooler too.
func refusePooler(ctx context.Context, db *sql.DB) error {
	var conns [2]*sql.Conn
	for i := range conns {
		conn, err := db.Conn(ctx)
		if err != nil {
			return err
		}
		defer conn.Close()
		conns[i] = conn
	}
	var pids [2]int
	for range 3 {
		for i, conn := range conns {
			var pid int
			if err := conn.QueryRowContext(ctx, "SELECT pg_catalog.pg_backend_pid()", pgx.QueryExecModeSimpleProtocol).Scan(&pid); err != nil {
				return err
			}
			if pids[i] != 0 && pids[i] != pid {
				return fmt.Errorf("%w (process %d, then %d)", pglock.ErrPooler, pids[i], pid)
			}
			pids[i] = pid
		}
		if pids[0] == pids[1] {
			return fmt.Errorf("%w (two connections share the process %d)", pglock.ErrPooler, pids[0])
		}
	}
	return nil
}
