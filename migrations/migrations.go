// Package migrations holds the migrations of the audit and of the fence guard, for
// goose:
//
//	goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
//		goose.WithTableName(migrations.Table))
//
// The first makes the table lock_audit. The second adds who killed a holder, and
// the indexes by which the history is read and pruned; it builds them without
// blocking an acquire, so it is in no transaction, and waits for transactions
// that are older than itself. The third is the fence guard. The fourth adds when
// the work under a lock was done. The fifth narrows the largest of the indexes to
// locks that were held for more than ten seconds; it too is in no transaction.
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
