// Package pginspect answers what an operator asks about the locks of a
// PostgreSQL server: who holds them and since when, who waits, who held what at
// some moment, whether the server is set up for them; and it ends a holder's
// session, and deletes old rows of the audit.
//
//	locks, err := pginspect.Locks(ctx, db)
//	page, err := pginspect.History(ctx, db, pginspect.Query{Target: "/lake/*"})
//	then, err := pginspect.HeldAt(ctx, db, noon)
//
// What the server itself knows of a lock is its key and its session. Target,
// owner, fence, TTL and the time of the grant are those that the holder wrote
// into the audit ([pglock.WithAudit]), in the table lock_audit of the database
// that is asked. Without an audit the key stands for the target.
//
// Nothing here takes a lock of swanlock's, and nothing but Kill, Prune and Succeed
// writes. A role that is not the holders' own sees their locks, but not their
// sessions' application, client and state, unless it may read all statistics
// (GRANT pg_read_all_stats). Check says what a role lacks.
//
// It links the standard library, the root package and the statements alone.
// The functions are safe for concurrent use.
//
// [pglock.WithAudit]: https://pkg.go.dev/github.com/swanlake-io/swanlock/pglock#WithAudit
package pginspect

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// A DB is a *sql.DB, a *sql.Conn or a *sql.Tx.
type DB interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// ErrNoAudit is the error of what needs the table lock_audit, if no schema of
// the search_path has it. "swanlock migrate up" makes it.
var ErrNoAudit = errors.New("there is no table lock_audit in this database: run swanlock migrate up")

// ErrOldAudit is the error of what needs a column of lock_audit that a later
// migration adds. "swanlock migrate up" adds it.
var ErrOldAudit = errors.New("lock_audit is of an earlier version: run swanlock migrate up")

var errNil = errors.New("pginspect: the connection is nil")

// allIndexes is how many indexes InspectTable counts when all migrations were
// applied.
const allIndexes = 4

// A table is the audit's, and how to send statements to it.
type table struct {
	db.InspectTableRow
	q *db.Queries
}

// open looks for the audit's table. Without one, table.q still has the
// statements that need none.
func open(ctx context.Context, on DB) (table, error) {
	if v := reflect.ValueOf(on); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
		return table{}, errNil
	}
	tx := db.On(on)
	row, err := db.New(db.Rewrite(tx, db.OneLine)).InspectTable(ctx)
	if err != nil {
		return table{}, explain("look for the audit", err)
	}
	name := cmp.Or(row.Schema, "public") + ".lock_audit"
	return table{row, db.New(db.Rewrite(tx, func(query string) string {
		query = strings.ReplaceAll(db.OneLine(query), "public.lock_audit", name)
		if !row.EndedBy { // the second migration was not applied
			query = withoutEndedBy.Replace(query)
		}
		if !row.SucceededAt { // nor the fourth
			query = withoutSucceededAt.Replace(query)
		}
		return query
	}))}, nil
}

// openAudit is open for what needs the table, and the right to read it.
func openAudit(ctx context.Context, on DB) (table, error) {
	t, err := open(ctx, on)
	switch {
	case err != nil:
	case t.Schema == "":
		err = fmt.Errorf("pginspect: %w", ErrNoAudit)
	case !t.MaySelect:
		err = fmt.Errorf("pginspect: this role may not read the audit: GRANT SELECT ON %s.lock_audit TO it", t.Schema)
	}
	return t, err
}

// withoutEndedBy takes the column of the second migration out of what is read.
var withoutEndedBy = strings.NewReplacer("a.ended_by, ", "NULL::varchar, ", "e.ended_by", "NULL::varchar AS ended_by",
	"o.ended_by", "NULL::varchar", "s.ended_by", "NULL::varchar")

// withoutSucceededAt does the same with that of the fourth, for the history alone:
// LastSuccess and Succeed need the column.
var withoutSucceededAt = strings.NewReplacer("FROM a.succeeded_at)", "FROM NULL::pg_catalog.timestamptz)", "e.succeeded_at", "NULL::pg_catalog.timestamptz AS succeeded_at",
	"o.succeeded_at", "NULL::pg_catalog.timestamptz", "s.succeeded_at", "NULL::pg_catalog.timestamptz")

// explain says what failed.
func explain(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("pginspect: %s: %w", what, err)
}

// at is the time that a statement has returned in microseconds; 0 is none.
func at(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}

// pause waits for d, or until ctx ends.
func pause(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return context.Cause(ctx)
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
