package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/database"
	"github.com/pressly/goose/v3/lock"

	"github.com/swanlake-io/swanlock/migrations"
)

// auditVersion is the migration that makes lock_audit.
const auditVersion = 1

// A made is what lock_audit looks like after a migration, as audit tells it.
type made struct {
	version int64
	file    string
	there   string
}

// madeAs are those of all migrations, in order. The indexes matter from the
// second on: without them it is to be applied.
var madeAs = []made{
	{1, "00001_lock_audit.sql", auditColumns},
	{2, "00002_lock_audit_inspect.sql", strings.Replace(auditColumns, "end_reason text, ", "end_reason text, ended_by text, ", 1) + " INDEXED"},
}

// madeBy returns the last migration that lock_audit is as after. Its version is 0
// if there is none. Another table is not ok.
func madeBy(there string) (last made, ok bool) {
	for _, m := range madeAs {
		if there == m.there {
			return m, true
		}
	}
	for _, m := range madeAs {
		// With the columns of a later migration, but not yet its indexes, or the
		// other way round, that is to be applied.
		if columns, _ := strings.CutSuffix(m.there, " INDEXED"); there == columns || there == columns+" INDEXED" {
			return made{max(auditVersion, m.version-1), madeAs[max(auditVersion, m.version-1)-1].file, there}, true
		}
	}
	return made{}, there == ""
}

const (
	// auditColumns are the columns that the first migration makes.
	auditColumns = "acquired_at timestamp with time zone NOT NULL, backend_pid integer NOT NULL, " +
		"backend_start timestamp with time zone NOT NULL, client_addr inet, end_reason text, fence bigint, " +
		"id bigint NOT NULL IDENTITY, key bigint NOT NULL, mode text NOT NULL, owner text NOT NULL, " +
		"refreshed_at timestamp with time zone NOT NULL, released_at timestamp with time zone, " +
		"target text NOT NULL, ttl_ms bigint NOT NULL"
)

// audit returns the columns of lock_audit, but for that of the fourth migration,
// which may be applied again, and whether it has the indexes of the
// second migration, or "" if there is no such table.
func audit(ctx context.Context, conn *sql.Conn) (columns string, err error) {
	for range 3 {
		if columns, err = auditOnce(ctx, conn); columns != noColumns {
			break // else it was made since the statement began, whose snapshot has the table alone
		}
	}
	return columns, err
}

const noColumns = "no columns"

// inSchema is the table of a name in the first schema of the search_path, where
// migrations make theirs; NULL if there is none. One in a later schema is another's.
func inSchema(table string) string {
	return "pg_catalog.to_regclass(pg_catalog.quote_ident(pg_catalog.current_schema()) OPERATOR(pg_catalog.||) '." + table + "')"
}

func auditOnce(ctx context.Context, conn *sql.Conn) (columns string, err error) {
	err = conn.QueryRowContext(ctx, `
SELECT coalesce(pg_catalog.string_agg(pg_catalog.concat(a.attname, ' ', pg_catalog.format_type(a.atttypid, a.atttypmod),
    CASE WHEN a.attnotnull THEN ' NOT NULL' ELSE '' END, CASE WHEN a.attidentity OPERATOR(pg_catalog.=) '' THEN '' ELSE ' IDENTITY' END),
    ', ' ORDER BY a.attname) OPERATOR(pg_catalog.||) CASE WHEN (SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i
        JOIN pg_catalog.pg_class c ON c.oid OPERATOR(pg_catalog.=) i.indexrelid
        WHERE i.indrelid OPERATOR(pg_catalog.=) `+inSchema("lock_audit")+` AND i.indisvalid
            AND (c.relname OPERATOR(pg_catalog.=) 'lock_audit_time' OR c.relname OPERATOR(pg_catalog.=) 'lock_audit_span')) OPERATOR(pg_catalog.=) 2
        THEN ' INDEXED' ELSE '' END,
    CASE WHEN `+inSchema("lock_audit")+` IS NULL THEN '' ELSE '`+noColumns+`' END)
FROM pg_catalog.pg_attribute AS a
WHERE a.attrelid OPERATOR(pg_catalog.=) `+inSchema("lock_audit")+` AND a.attnum OPERATOR(pg_catalog.>) 0 AND NOT a.attisdropped
    AND a.attname OPERATOR(pg_catalog.<>) 'succeeded_at'`,
		pgx.QueryExecModeSimpleProtocol).Scan(&columns)
	return columns, err
}

// appliedAt returns when goose applied a migration. It is zero if goose did
// not, or if this role may not read that.
func appliedAt(ctx context.Context, conn *sql.Conn, version int64) (at time.Time, err error) {
	var readable bool
	err = conn.QueryRowContext(ctx, "SELECT coalesce(pg_catalog.has_table_privilege("+inSchema(migrations.Table)+", 'SELECT'), false)",
		pgx.QueryExecModeSimpleProtocol).Scan(&readable)
	if err != nil || !readable {
		return at, err
	}
	var seconds int64 // a time's text is as the server's DateStyle says
	err = conn.QueryRowContext(ctx, "SELECT extract(epoch FROM tstamp)::bigint FROM "+migrations.Table+" WHERE version_id OPERATOR(pg_catalog.=) $1 AND is_applied ORDER BY id DESC LIMIT 1",
		pgx.QueryExecModeSimpleProtocol, version).Scan(&seconds)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return at, nil
	case err != nil:
		return at, err
	}
	return time.Unix(seconds, 0), nil
}

// versionsHidden reports whether goose's table is there, and this role may not
// read it.
func versionsHidden(ctx context.Context, conn *sql.Conn) (hidden bool, err error) {
	err = conn.QueryRowContext(ctx, "SELECT NOT coalesce(pg_catalog.has_table_privilege("+inSchema(migrations.Table)+", 'SELECT'), true)",
		pgx.QueryExecModeSimpleProtocol).Scan(&hidden)
	return hidden, err
}

// An adopter notes under the lock which migrations lock_audit shows, if it was
// made from what migrate print says, so that goose does not make it again.
type adopter struct {
	lock.SessionLocker
	adopted []string // their files
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

// adoptable returns what lock_audit is as after, if it is there, and goose does
// not know it. The version is 0 if nothing is to be adopted. A table that differs
// is an error.
func adoptable(ctx context.Context, conn *sql.Conn) (made, error) {
	at, err := appliedAt(ctx, conn, auditVersion)
	if err != nil || !at.IsZero() {
		return made{}, err
	}
	there, err := audit(ctx, conn)
	if err != nil {
		return made{}, err
	}
	last, ok := madeBy(there)
	if !ok {
		err = fmt.Errorf("there is a table lock_audit, and it is not the one that %s makes: rename it, or drop it (its columns: %s; wanted: %s)",
			madeAs[0].file, there, auditColumns)
	}
	return last, err
}

func (a *adopter) adopt(ctx context.Context, conn *sql.Conn) error {
	last, err := adoptable(ctx, conn)
	if err != nil || last.version == 0 {
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
	if err := tx.QueryRowContext(ctx, "SELECT "+inSchema(migrations.Table)+" IS NOT NULL").Scan(&exists); err != nil {
		return err
	}
	var versions []int64
	if !exists {
		if err := store.CreateVersionTable(ctx, tx); err != nil {
			return err
		}
		versions = append(versions, 0) // goose wants its zero
	}
	var files []string
	for _, m := range madeAs[:last.version] {
		versions, files = append(versions, m.version), append(files, m.file)
	}
	for _, version := range versions {
		if err := store.Insert(ctx, tx, database.InsertRequest{Version: version}); err != nil {
			return err
		}
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	a.adopted = files
	return nil
}
