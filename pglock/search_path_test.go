package pglock_test

import (
	"context"
	"database/sql"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// namesOf finds what follows pg_catalog in our statements: the names of the functions,
// operators and relations that they use.
func namesOf(t *testing.T, pattern string) (names []string) {
	t.Helper()
	files, err := filepath.Glob("../queries/*.sql")
	must(t, err)
	for _, file := range files {
		text, err := os.ReadFile(file)
		must(t, err)
		for _, found := range regexp.MustCompile(pattern).FindAllStringSubmatch(string(text), -1) {
			names = append(names, found[1])
		}
	}
	slices.Sort(names)
	if names = slices.Compact(names); len(names) < 3 {
		t.Fatalf("only %q is found", names)
	}
	return names
}

// hostileSchema makes, in a database of its own with the audit, the schema app with a
// namesake of each function, operator, relation and type that we use, and puts it
// before all others, for connections that set no search_path. Those that matter
// answer as would suit an attacker; the others fail.
func hostileSchema(t *testing.T) (dbname string) {
	t.Helper()
	dbname = newDatabase(t)
	admin := openDB(t, "postgres", dbname)
	_, err := provider(admin).Up(bg)
	must(t, err)
	run(t, admin, "CREATE SCHEMA app")
	array := func(names []string) string { return "ARRAY['" + strings.Join(names, "','") + "']" }
	run(t, admin, `DO $do$ DECLARE f record; body text; BEGIN
		FOR f IN SELECT p.oid, p.proname, p.prorettype, p.prokind, p.proretset, p.pronargs, pg_get_function_identity_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result
			FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.proname = ANY (`+array(namesOf(t, `pg_catalog\.(\w+)\(`))+`)
			AND p.provariadic = 0 AND p.prokind IN ('f', 'a') AND p.proallargtypes IS NULL
			AND NOT EXISTS (SELECT FROM unnest(array_append(p.proargtypes::oid[], p.prorettype)) a JOIN pg_type y ON y.oid = a
				WHERE y.typtype = 'p' AND y.typname NOT IN ('anyarray', 'anyelement', 'anycompatible', 'anycompatiblearray', 'void'))
		LOOP
			body := CASE
				WHEN f.proname ~ '^pg_(try_)?advisory_' AND f.prorettype = 'boolean'::regtype THEN 'RETURN true'
				WHEN f.prorettype = 'void'::regtype THEN 'RETURN'
				WHEN f.proname = 'pg_backend_pid' THEN 'RETURN 1'
				WHEN f.proname = 'pg_is_in_recovery' THEN 'RETURN false'
				WHEN f.proname = 'set_config' THEN 'RETURN $2'
				ELSE 'RAISE EXCEPTION ''somebody else''''s function was called: `+"%"+`'', '''||f.oid::regprocedure||'''' END;
			EXECUTE format('CREATE FUNCTION app.%I(%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN %s; END $f$', f.proname,
				NULLIF(f.args, '*'), f.result, body);
		END LOOP;
		FOR f IN SELECT o.oprname, o.oid, o.oprleft::regtype AS l, o.oprright::regtype AS r, o.oprresult::regtype AS result, o.oprleft
			FROM pg_operator o WHERE o.oprnamespace = 'pg_catalog'::regnamespace AND o.oprname = ANY (ARRAY['=','<>','<','<=','>','>=','+','-','*','||','&','|','<<','>>'])
			AND NOT EXISTS (SELECT FROM pg_type y WHERE y.oid IN (o.oprleft, o.oprright, o.oprresult) AND y.typtype = 'p')
		LOOP
			EXECUTE format('CREATE FUNCTION app.operator_%s(%s%s) RETURNS %s LANGUAGE plpgsql AS $f$ BEGIN RAISE EXCEPTION ''somebody else''''s operator was called''; END $f$',
				f.oid, CASE WHEN f.oprleft = 0 THEN '' ELSE f.l::text || ',' END, f.r, f.result);
			EXECUTE format('CREATE OPERATOR app.%s (%s RIGHTARG = %s, FUNCTION = app.operator_%s)', f.oprname,
				CASE WHEN f.oprleft = 0 THEN '' ELSE 'LEFTARG = ' || f.l || ',' END, f.r, f.oid);
		END LOOP;
	END $do$`)
	for _, relation := range namesOf(t, `(?:FROM|JOIN) pg_catalog\.(\w+) \w`) {
		columns := one[string](t, admin, `SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_catalog.pg_attribute a JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
			WHERE a.attrelid = ('pg_catalog.' || $1)::regclass AND a.attnum > 0 AND y.typtype <> 'p'`, relation)
		run(t, admin, "CREATE TABLE app."+relation+" AS SELECT "+columns+" FROM pg_catalog."+relation+" LIMIT 0")
	}
	run(t, admin, "CREATE TABLE app.swanlock_decoy (LIKE public.lock_audit)")
	for _, name := range []string{"text", "int8", "int4", "bool", "oid", "name", "varchar", "float8", "interval", "numeric"} {
		run(t, admin, "CREATE DOMAIN app."+name+" AS pg_catalog.date")
	}
	run(t, admin, "ALTER DATABASE "+strings.TrimPrefix(dbname, "dbname=")+" SET search_path = app, public, pg_catalog")
	return dbname
}

// TestHostileSchema: whatever functions, operators, relations and types others put
// before PostgreSQL's own (CVE-2018-1058), a lock excludes, is waited for in line, is
// proven and freed; and the audit is right.
func TestHostileSchema(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname := hostileSchema(t)
		o := observe(t, dbname, "search_path=pg_catalog,public")
		check := dial(t, driver, dbname)
		var taken bool
		must(t, check.QueryRowContext(bg, "SELECT pg_try_advisory_lock(1) AND pg_try_advisory_lock(2)").Scan(&taken))
		if !taken || o.locksOf(one[int](t, check, "SELECT pg_catalog.pg_backend_pid()")) != 0 {
			t.Fatal("the schema is not hostile: a lock was taken")
		}
		lockers := map[string]func(t *testing.T) swanlock.Locker{
			"pool":         func(t *testing.T) swanlock.Locker { return newPool(t, openDB(t, driver, dbname)) },
			"audited pool": func(t *testing.T) swanlock.Locker { return newPool(t, openDB(t, driver, dbname), pglock.WithAudit()) },
		}
		for _, by := range acquirers {
			lockers[by.name] = func(t *testing.T) swanlock.Locker { return by.with(dial(t, driver, dbname)) }
		}
		for name, locker := range lockers {
			for _, c := range tripOptions {
				t.Run(name+" "+c.name, func(t *testing.T) {
					o, target := o.in(t), newTarget(t)
					first, second := locker(t), locker(t)
					held := acquired(t, first, target, c.opts...)
					o.wantHeld(target, held.BackendPID())
					_, err := second.TryAcquire(bg, target)
					wantIs(t, err, swanlock.ErrNotAcquired)
					must(t, held.Refresh(bg))
					opts := c.opts
					if c.name == "shared" {
						opts = nil // another reader need not wait
					}
					got := waitsFor(t, o, shortly(t), second, target, opts...)
					ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
					defer cancel()
					_, err = locker(t).Acquire(ctx, target) // a place behind, and given up
					wantIs(t, err, swanlock.ErrNotAcquired)
					o.wantTickets(target, 1)
					must(t, held.Release(bg))
					next := (<-got).get(t).(*pglock.PostgresLock)
					o.wantHeld(target, next.BackendPID())
					must(t, next.Release(bg))
					o.wantSoonFree(target)
					if strings.HasPrefix(name, "audited") {
						o.wantReasons(target, "released", "released")
					}
				})
			}
		}
		// Many at once go in one statement, and a heartbeat proves them.
		p := newPool(t, openDB(t, driver, dbname), pglock.WithHeartbeat(20*time.Millisecond))
		many := holdMany(t, p, newTarget(t), 20)
		time.Sleep(100 * time.Millisecond)
		for _, l := range many {
			if l.Err() != nil {
				t.Fatalf("a heartbeat lost a lock: %v", l.Err())
			}
		}
		releaseMany(t, many)
	})
}

// TestAuditSchema: a row is written to the table that the migration made, in whatever
// schema that was, and not to a temporary one of its name.
func TestAuditSchema(t *testing.T) {
	count := func(t *testing.T, db *sql.DB, table, target string) int {
		t.Helper()
		return one[int](t, db, "SELECT count(*) FROM "+table+" WHERE key = $1::bigint AND end_reason = 'released'", int64(pglock.KeyOf(target)))
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for _, c := range []struct{ name, schema, path string }{
			{"public", "public", ""},
			{"another", "locks", "locks"},
			{"quoted", `"Odd "", schema"`, `"Odd "", schema", public`},
			{"behind", "locks", `nothing, "$user", public, locks`},
			{"temporary first", "locks", "pg_temp, locks"},
			{"of two, the first", "locks", "locks, other"},
		} {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				dbname := newDatabase(t)
				admin := openDB(t, "postgres", dbname)
				if c.schema != "public" {
					run(t, admin, "CREATE SCHEMA "+c.schema)
				}
				for _, schema := range []string{"other", c.schema} {
					run(t, admin, "CREATE SCHEMA IF NOT EXISTS "+schema)
					if schema == c.schema || strings.Contains(c.path, schema) {
						run(t, admin, "DROP TABLE IF EXISTS swanlock_migrations")
						run(t, admin, "ALTER DATABASE "+strings.TrimPrefix(dbname, "dbname=")+" SET search_path = "+schema)
						migrating := openDB(t, driver, dbname)
						_, err := provider(migrating).Up(bg)
						must(t, err)
					}
				}
				run(t, admin, "ALTER DATABASE "+strings.TrimPrefix(dbname, "dbname=")+" RESET search_path")
				for name, temporary := range map[string]bool{"with a temporary table": true, "without": false} {
					t.Run(name, func(t *testing.T) {
						conn := dial(t, driver, dbname)
						if c.path != "" {
							run(t, conn, "SET search_path = "+c.path)
						}
						if temporary {
							run(t, conn, "CREATE TEMPORARY TABLE lock_audit (LIKE "+c.schema+".lock_audit INCLUDING ALL)")
						}
						s, target := pglock.NewSession(conn, pglock.WithAudit()), newTarget(t)
						held := acquired(t, s, target, swanlock.WithTTL(time.Minute))
						run(t, conn, "SET search_path = pg_catalog") // it was found before
						must(t, held.Refresh(bg))
						must(t, held.Release(bg))
						held = acquired(t, s, target)
						must(t, held.Release(bg))
						if n := count(t, admin, c.schema+".lock_audit", target); n != 2 {
							t.Errorf("the audit has %d rows, want 2", n)
						}
						if temporary {
							if n := one[int](t, conn, "SELECT pg_catalog.count(*) FROM pg_temp.lock_audit"); n != 0 {
								t.Errorf("the temporary table has %d rows", n)
							}
						}
					})
				}
			})
		}
	})
}

// TestAuditTableComesAndGoes: without a table nothing is granted, though a temporary one
// has its name; once it is made, or made elsewhere, the same session writes there.
func TestAuditTableComesAndGoes(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		dbname := newDatabase(t)
		o := observe(t, dbname)
		up := func(schema string) {
			t.Helper()
			run(t, o.db, "CREATE SCHEMA IF NOT EXISTS "+schema)
			_, err := provider(openDB(t, driver, dbname, "search_path="+schema)).Up(bg)
			must(t, err)
		}
		conn := dial(t, driver, dbname, "search_path=locks,public")
		run(t, conn, "CREATE TEMPORARY TABLE lock_audit (x int)")
		s, plain, target := pglock.NewSession(conn, pglock.WithAudit()), pglock.NewSession(conn), newTarget(t)
		refused := func() {
			t.Helper()
			_, err := s.TryAcquire(bg, target)
			wantIs(t, err, pglock.ErrAudit)
			if !strings.Contains(err.Error(), "migrat") {
				t.Errorf("%v does not say what to do", err)
			}
			o.wantHeld(target)
			must(t, acquired(t, plain, target).Release(bg))
		}
		refused()
		up("public")
		must(t, acquired(t, s, target).Release(bg))
		if n := len(o.rows(target)); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
		run(t, o.db, "DROP TABLE public.lock_audit")
		refused()
		up("locks")
		must(t, acquired(t, s, target).Release(bg))
		if n := one[int](t, o.db, "SELECT count(*) FROM locks.lock_audit"); n != 1 {
			t.Errorf("%d rows, want 1", n)
		}
	})
}
