package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// TestMigrateDownInUse: as long as a table's writes need a fence, migrate down
// removes nothing, and names that table.
func TestMigrateDownInUse(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	migrateSays(t, dsn, "up", "applied")
	execSQL(t, dsn, "CREATE TABLE account (id int)", "CREATE TRIGGER fenced BEFORE INSERT ON account FOR EACH ROW EXECUTE FUNCTION lock_fenced()",
		"INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, backend_pid, backend_start, acquired_at, refreshed_at, succeeded_at) "+
			"VALUES ('t', 1, 'o', 0, 'exclusive', 1, now(), now(), now(), now())")
	p := swanlockCommand(t, env(dsn), "migrate", "down").start().want(exitUnavailable).says("migrate down: nothing was removed", "trigger fenced on table account")
	if p.stdout.Len() > 0 {
		t.Errorf("it says %s", &p.stdout)
	}
	migrateSays(t, dsn, "up", "nothing to do\n")
	var succeeded int
	if err := openDB(t, dsn).QueryRow("SELECT count(succeeded_at) FROM lock_audit").Scan(&succeeded); err != nil || succeeded != 1 {
		t.Errorf("the audit knows of %d successes, %v; want 1", succeeded, err)
	}
	execSQL(t, dsn, "DROP TABLE account")
	migrateSays(t, dsn, "down", "removed 00001_lock_audit.sql\n")
}

// TestMigrateDownPartitioned: a table that was made partitioned, as
// docs/auditing.md has it, is not for goose to remove; what is said instead does it.
func TestMigrateDownPartitioned(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	migrateSays(t, dsn, "up", "applied")
	doc, err := os.ReadFile("../../docs/auditing.md")
	if err != nil {
		t.Fatal(err)
	}
	recipe := regexp.MustCompile("(?s)```sql\n(BEGIN;.*?)```").FindSubmatch(doc)
	if recipe == nil {
		t.Fatal("docs/auditing.md has no statements that make partitions")
	}
	execSQL(t, dsn, string(recipe[1]))
	const remove = "DROP TABLE lock_audit, lock_fences, swanlock_migrations; DROP FUNCTION lock_fenced(), lock_fence(bigint, bigint)"
	swanlockCommand(t, env(dsn), "migrate", "down").start().want(exitUnavailable).says("nothing was removed", "partitioned", remove)
	migrateSays(t, dsn, "up", "nothing to do\n")
	execSQL(t, dsn, remove)
	migrateSays(t, dsn, "up", "applied 00001_lock_audit.sql\n")
}

// TestMigrateSaysHowFarItCame: what was done before a migration that failed is told.
func TestMigrateSaysHowFarItCame(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	execSQL(t, dsn, "CREATE TABLE lock_fences (another int)", "CREATE VIEW v AS SELECT another FROM lock_fences", "CREATE FUNCTION lock_fence(key bigint, fence bigint) RETURNS text LANGUAGE sql AS 'SELECT NULL'")
	p := swanlockCommand(t, env(dsn), "migrate", "up").start().want(exitUnavailable).says("migrate up", "return type")
	if got, want := p.stdout.String(), "applied 00001_lock_audit.sql\napplied 00002_lock_audit_inspect.sql\n"; got != want {
		t.Errorf("it says %q, want %q", got, want)
	}
}

// TestMigrateLeavesOtherSchemas: what is missing in the first schema, after an
// interruption perhaps, is not removed from a later one.
func TestMigrateLeavesOtherSchemas(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do     string
		before []string
		code   int
	}{
		"up, without the index":    {"up", []string{"DROP INDEX app.lock_audit_span", "DELETE FROM app.swanlock_migrations WHERE version_id = 5"}, 0},
		"down, without an index":   {"down", []string{"DROP INDEX app.lock_audit_span"}, 0},
		"down, without another":    {"down", []string{"DROP INDEX app.lock_audit_time"}, 0},
		"down, without the table":  {"down", []string{"DROP TABLE app.lock_audit"}, exitUnavailable},
		"down, without the guard":  {"down", []string{"DROP FUNCTION app.lock_fenced()"}, exitUnavailable},
		"down, without the fences": {"down", []string{"DROP TABLE app.lock_fences"}, exitUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			dsn := newDatabase(t)
			migrateSays(t, dsn, "up", "applied")
			in := func() (things string) {
				if err := openDB(t, dsn).QueryRow(`SELECT string_agg(thing, ' ' ORDER BY thing) FROM (
					SELECT c.relname::text || coalesce('.' || a.attname, '') AS thing FROM pg_class c LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
						WHERE c.relnamespace = 'public'::regnamespace
					UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace) things`).Scan(&things); err != nil {
					t.Fatal(err)
				}
				return things
			}
			before := in()
			execSQL(t, dsn, "CREATE SCHEMA app", "ALTER DATABASE "+nameOf(t, dsn)+" SET search_path = app, public")
			migrateSays(t, dsn, "up", "applied")
			execSQL(t, dsn, c.before...)
			swanlockCommand(t, env(dsn), "migrate", c.do).start().want(c.code)
			if after := in(); after != before {
				t.Errorf("migrate %s has made of\n%s\nin public\n%s", c.do, strings.ReplaceAll(before, " ", "\n"), strings.ReplaceAll(after, " ", "\n"))
			}
		})
	}
}
