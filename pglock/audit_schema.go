package pglock

import (
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
	return db.New(db.Rewrite(a.conn, func(query string) string { return located(query, schema) }))
}

// A location is a statement and the schema of its table.
type location struct{ query, schema string }

// locatedAt has the text for each location, map[location]string. It stays
// small, since few schemas have an audit.
var locatedAt sync.Map

// located returns a statement of the audit for the table in schema.
func located(query, schema string) string {
	key := location{query, schema}
	if text, ok := locatedAt.Load(key); ok {
		return text.(string)
	}
	text := strings.ReplaceAll(query, defaultSchema+".lock_audit", schema+".lock_audit")
	locatedAt.Store(key, text)
	return text
}
