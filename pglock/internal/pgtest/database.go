package pgtest

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// NewDatabase makes a database without the migration on the shared server, gone
// with the test, and returns the parameter of OpenDB that names it.
func NewDatabase(t testing.TB) (param string) {
	t.Helper()
	name := fmt.Sprintf("empty_%d", rand.Uint64())
	admin := OpenDB(t, "postgres")
	Run(t, admin, "CREATE DATABASE "+name)
	t.Cleanup(func() { Run(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	return "dbname=" + name
}

// NewRole makes a role with no rights, gone with the test, and returns the
// parameter of OpenDB that names it. The db is the parameter of the database in
// which the test may grant it something.
func NewRole(t testing.TB, db string) (param, name string) {
	t.Helper()
	name = fmt.Sprintf("nobody_%d", rand.Uint64())
	admin := OpenDB(t, "postgres", db)
	Run(t, admin, "CREATE ROLE "+name+" LOGIN")
	t.Cleanup(func() {
		Run(t, admin, "DROP OWNED BY "+name)
		Run(t, admin, "DROP ROLE "+name)
	})
	return "user=" + name, name
}
