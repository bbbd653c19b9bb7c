package pglock

import (
	"context"
	"database/sql"
	"strings"
	"sync"

	"github.com/swanlake-io/swanlock/db"
)

// defaultSchema is the schema of the audit's table in queries/audit.sql.
const defaultSchema = "public"

// auditIn returns the statements of the audit whose table is in schema, which is
// quoted where it must be. The table is named by its schema, and not found by the
// session's search_path, which has the session's temporary tables first.
func (a *access) auditIn(schema string) *db.Queries {
	if schema == defaultSchema {
		return a.q
	}
	return db.New(inSchema{a.conn, schema})
}

// An inSchema sends statements of the audit, whose table is in that schema.
type inSchema struct {
	db.DBTX
	schema string
}

func (s inSchema) QueryRowContext(ctx context.Context, query string, args ...any) db.Row {
	return s.DBTX.QueryRowContext(ctx, s.located(query), args...)
}

func (s inSchema) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return s.DBTX.ExecContext(ctx, s.located(query), args...)
}

// A place is a statement and the schema that it is for.
type place struct{ query, schema string }

// locatedAt has the text for each place: map[place]string. A program has few schemas
// with an audit.
var locatedAt sync.Map

func (s inSchema) located(query string) string {
	key := place{query, s.schema}
	if text, ok := locatedAt.Load(key); ok {
		return text.(string)
	}
	text := strings.ReplaceAll(query, defaultSchema+".lock_audit", s.schema+".lock_audit")
	locatedAt.Store(key, text)
	return text
}
