// Package migrations holds the migration of the package leaselock, for goose:
//
//	goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
//		goose.WithTableName(migrations.Table))
//
// It makes the table lock_leases, in the first schema of the search_path. It
// imports no goose itself, and has a version table of its own.
package migrations

import "embed"

// FS holds the migration, at its root.
//
//go:embed *.sql
var FS embed.FS

// Table is the name of the version table that keeps it apart from yours, and
// from those of the audit.
const Table = "swanlock_lease_migrations"
