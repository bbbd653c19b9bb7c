package pgtest

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// NewDatabase makes a database without the migration on the shared server, gone
// with the test, and returns the parameter of OpenDB that names it. Each of
// settings is what follows ALTER DATABASE … SET: "search_path = app, pg_catalog".
// They hold for sessions that begin later.
func NewDatabase(t testing.TB, settings ...string) (param string) {
	t.Helper()
	return newDatabase(t, "", settings)
}

// NewDatabaseIn is NewDatabase in an encoding of PostgreSQL's, such as LATIN1.
func NewDatabaseIn(t testing.TB, encoding string, settings ...string) (param string) {
	t.Helper()
	return newDatabase(t, "ENCODING '"+encoding+"' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0", settings)
}

func newDatabase(t testing.TB, how string, settings []string) string {
	t.Helper()
	name := fmt.Sprintf("empty_%d", rand.Uint64())
	admin := OpenDB(t, "postgres")
	Run(t, admin, "CREATE DATABASE "+name+" "+how)
	t.Cleanup(func() { Run(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
	for _, setting := range settings {
		Run(t, admin, "ALTER DATABASE "+name+" SET "+setting)
	}
	return "dbname=" + name
}

// NewRole makes a role with no rights, gone with the test, and returns the
// parameter of OpenDB that names it. The db is the parameter of the database in
// which the test may grant it something. The settings are as NewDatabase's, for
// ALTER ROLE.
func NewRole(t testing.TB, db string, settings ...string) (param, name string) {
	t.Helper()
	name = fmt.Sprintf("nobody_%d", rand.Uint64())
	admin := OpenDB(t, "postgres", db)
	Run(t, admin, "CREATE ROLE "+name+" LOGIN")
	t.Cleanup(func() {
		Run(t, admin, "DROP OWNED BY "+name)
		Run(t, admin, "DROP ROLE "+name)
	})
	for _, setting := range settings {
		Run(t, admin, "ALTER ROLE "+name+" SET "+setting)
	}
	return "user=" + name, name
}

// NameOf returns the name in a parameter of OpenDB.
func NameOf(param string) string {
	_, name, _ := strings.Cut(param, "=")
	return name
}
