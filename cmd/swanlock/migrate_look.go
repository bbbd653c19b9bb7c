package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/swanlake-io/swanlock/migrations"
)

const (
	// auditVersion is the migration that makes lock_audit, and auditFile its
	// file.
	auditVersion = 1
	auditFile    = "00001_lock_audit.sql"
	// auditColumns are the columns that it makes, as audit tells them.
	auditColumns = "acquired_at timestamp with time zone NOT NULL, backend_pid integer NOT NULL, " +
		"backend_start timestamp with time zone NOT NULL, client_addr inet, end_reason text, fence bigint, " +
		"id bigint NOT NULL IDENTITY, key bigint NOT NULL, mode text NOT NULL, owner text NOT NULL, " +
		"refreshed_at timestamp with time zone NOT NULL, released_at timestamp with time zone, " +
		"target text NOT NULL, ttl_ms bigint NOT NULL"
)

// audit returns the columns of lock_audit, or "" if there is no such table.
func audit(ctx context.Context, conn *sql.Conn) (columns string, err error) {
	for range 3 {
		if columns, err = auditOnce(ctx, conn); columns != noColumns {
			break // else it was made since the statement began, whose snapshot has the table alone
		}
	}
	return columns, err
}

const noColumns = "no columns"

func auditOnce(ctx context.Context, conn *sql.Conn) (columns string, err error) {
	err = conn.QueryRowContext(ctx, `
SELECT coalesce(pg_catalog.string_agg(pg_catalog.concat(a.attname, ' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, CASE WHEN a.attidentity OPERATOR(pg_catalog.=) '' THEN '' ELSE ' IDENTITY' END),
    ', ' ORDER BY a.attname), CASE WHEN pg_catalog.to_regclass('lock_audit') IS NULL THEN '' ELSE '`+noColumns+`' END)
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid OPERATOR(pg_catalog.=) pg_catalog.to_regclass('lock_audit') AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped`,
		pgx.QueryExecModeSimpleProtocol).Scan(&columns)
	return columns, err
}

// appliedAt returns when goose applied a migration. It is zero if goose did
// not, or if this role may not read that.
func appliedAt(ctx context.Context, conn *sql.Conn, version int64) (at time.Time, err error) {
	var readable bool
	err = conn.QueryRowContext(ctx, "SELECT coalesce(pg_catalog.has_table_privilege(pg_catalog.to_regclass($1), 'SELECT'), false)",
		pgx.QueryExecModeSimpleProtocol, migrations.Table).Scan(&readable)
	if err != nil || !readable {
		return at, err
	}
	err = conn.QueryRowContext(ctx, "SELECT tstamp FROM "+migrations.Table+" WHERE version_id OPERATOR(pg_catalog.=) $1 AND is_applied ORDER BY id DESC LIMIT 1",
		pgx.QueryExecModeSimpleProtocol, version).Scan(&at)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return at, err
}

// An adopter notes under the lock that lock_audit is there, if it was made from
// what migrate print says, so that goose does not make it again.
type adopter struct {
	lock.SessionLocker
	adopted string // the file, or ""
}

func (a *adopter) SessionLock(ctx context.Context, conn *sql.Conn) error {
	if err := a.SessionLocker.SessionLock(ctx, conn); err != nil {
		return err
	}
	err := a.adopt(ctx, conn)
	if err != nil {
		err = errors.Join(err, a.SessionUnlock(context.WithoutCancel(ctx), conn))
	}
	return err
}

// adoptable reports whether lock_audit is there, is as the migration makes it,
// and is not known to goose. A table that differs is an error.
func adoptable(ctx context.Context, conn *sql.Conn) (bool, error) {
	at, err := appliedAt(ctx, conn, auditVersion)
	if err != nil || !at.IsZero() {
		return false, err
	}
	there, err := audit(ctx, conn)
	if err != nil || there == "" {
		return false, err
	}
	if there != auditColumns {
		return false, fmt.Errorf("there is a table lock_audit, and it is not the one that %s makes: rename it, or drop it (its columns: %s; wanted: %s)",
			auditFile, there, auditColumns)
	}
	return true, nil
}

func (a *adopter) adopt(ctx context.Context, conn *sql.Conn) error {
	if ok, err := adoptable(ctx, conn); !ok {
		return err
	}
	store, err := database.NewStore(goose.DialectPostgres, migrations.Table)
	if err != nil {
		return err
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var exists bool
	if err := tx.QueryRowContext(ctx, "SELECT pg_catalog.to_regclass($1) IS NOT NULL", migrations.Table).Scan(&exists); err != nil {
		return err
	}
	versions := []int64{auditVersion}
	if !exists {
		if err := store.CreateVersionTable(ctx, tx); err != nil {
			return err
		}
		versions = []int64{0, auditVersion} // goose wants its zero
	}
	for _, version := range versions {
		if err := store.Insert(ctx, tx, database.InsertRequest{Version: version}); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	a.adopted = auditFile
	return nil
}
