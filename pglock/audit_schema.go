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

// auditIn returns the statements of the audit, for a table in schema, which is
// quoted where it must be. They name the table's schema, since the search_path
// would find a temporary table of that name first.
func (a *access) auditIn(schema string) *db.Queries {
	if schema == defaultSchema {
		return a.q
	}
	return db.New(inSchema{a.conn, schema})
}

// An inSchema sends the statements of the audit, for the table in schema.
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

// A location is a statement and the schema of its table.
type location struct{ query, schema string }

// locatedAt has the text for each location, map[location]string. It stays
// small, since few schemas have an audit.
var locatedAt sync.Map

func (s inSchema) located(query string) string {
	key := location{query, s.schema}
	if text, ok := locatedAt.Load(key); ok {
		return text.(string)
	}
	text := strings.ReplaceAll(query, defaultSchema+".lock_audit", s.schema+".lock_audit")
	locatedAt.Store(key, text)
	return text
}
