// Package migrations holds the migrations of the audit and of the fence guard, for
// goose:
//
//	goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
//		goose.WithTableName(migrations.Table))
//
// It imports no goose itself. Its files are numbered from 1 like yours, so
// they need a version table of their own: Table, or in the goose command
// -table swanlock_migrations.
package migrations

import "embed"

// FS holds the migrations, at its root.
//
//go:embed *.sql
var FS embed.FS

// Table is the name of the version table that keeps them apart from yours.
const Table = "swanlock_migrations"
