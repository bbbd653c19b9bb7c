package pgtest

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
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

// NewMigratedDatabase is NewDatabase with the migration for the audit.
func NewMigratedDatabase(t testing.TB) (param string) {
	t.Helper()
	Must(t, migratedTemplate())
	return newDatabase(t, "TEMPLATE "+templateName, nil)
}

// migratedTemplate makes the database that NewMigratedDatabase copies: a copy costs
// less than the migrations.
var migratedTemplate = sync.OnceValue(func() error {
	srv, err := Migrated()
	if err != nil {
		return err
	}
	for _, step := range []struct {
		url string
		do  func(*sql.DB) error
	}{
		{srv.URL(), func(db *sql.DB) error {
			_, err := db.ExecContext(Background, "CREATE DATABASE "+templateName)
			return err
		}},
		{srv.URL("dbname=" + templateName), func(db *sql.DB) error { _, err := Provider(db).Up(Background); return err }},
	} {
		db, err := sql.Open("postgres", step.url)
		if err == nil {
			err = errors.Join(step.do(db), db.Close())
		}
		if err != nil {
			return err
		}
	}
	return nil
})

const templateName = "migrated"

func newDatabase(t testing.TB, how string, settings []string) string {
	t.Helper()
	name := fmt.Sprintf("empty_%d", rand.Uint64())
	admin := sharedObserver.get(t)
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
