package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"strings"
	"testing"
)

// evilSchema returns the name of a schema for evilDB.
func evilSchema(name, driver string) string {
	return name + "_" + strings.ReplaceAll(driver, "-", "_")
}

// evilDB is a *sql.DB on which functions of PostgreSQL's are replaced by those
// that functions creates in the schema, so that they can fail. Our statements
// name the schema of each function, so the statements are changed when they are
// sent.
func evilDB(t *testing.T, drv, schema, functions string) *sql.DB {
	t.Helper()
	admin := observe(t).db
	run(t, admin, "CREATE SCHEMA "+schema)
	t.Cleanup(func() { admin.ExecContext(bg, "DROP SCHEMA "+schema+" CASCADE") })
	run(t, admin, "CREATE SEQUENCE "+schema+".calls")
	run(t, admin, functions)
	// Their namesakes with other arguments are as they were.
	run(t, admin, `DO $do$ DECLARE f record; BEGIN
		FOR f IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS args, pg_get_function_result(p.oid) AS result,
				(SELECT string_agg('$' || i, ', ') FROM generate_series(1, p.pronargs) i) AS pass
			FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
			AND EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = '`+schema+`'::regnamespace AND o.proname = p.proname)
			AND NOT EXISTS (SELECT FROM pg_proc o WHERE o.pronamespace = '`+schema+`'::regnamespace AND o.proname = p.proname AND o.proargtypes = p.proargtypes)
		LOOP
			EXECUTE format('CREATE FUNCTION `+schema+`.%I(%s) RETURNS %s LANGUAGE sql AS $f$ SELECT pg_catalog.%I(%s) $f$',
				f.proname, f.args, f.result, f.proname, f.pass);
		END LOOP;
	END $do$`)
	var pairs []string
	for _, name := range column[string](t, admin, "SELECT DISTINCT proname::text FROM pg_proc WHERE pronamespace = '"+schema+"'::regnamespace") {
		pairs = append(pairs, "pg_catalog."+name+"(", schema+"."+name+"(")
	}
	return changedDB(t, drv, server(t).URL(), pairs...)
}

// changedDB is a *sql.DB that changes the statements that are sent: the first
// text of each pair becomes the second.
func changedDB(t *testing.T, drv, url string, pairs ...string) *sql.DB {
	t.Helper()
	honest := openDB(t, drv)
	must(t, honest.Close()) // only its driver is wanted
	db := sql.OpenDB(evilConnector{honest.Driver(), url, strings.NewReplacer(pairs...)})
	t.Cleanup(func() { db.Close() })
	return db
}

type evilConnector struct {
	driver driver.Driver
	url    string
	change *strings.Replacer
}

func (c evilConnector) Driver() driver.Driver { return c.driver }

func (c evilConnector) Connect(context.Context) (driver.Conn, error) {
	conn, err := c.driver.Open(c.url)
	return &evil{Conn: conn, change: c.change}, err
}

// An evil connection changes the text of the statements.
type evil struct {
	driver.Conn
	change *strings.Replacer
}

func (c *evil) Prepare(string) (driver.Stmt, error) { return nil, errors.New("not called") }

func (c *evil) PrepareContext(ctx context.Context, query string) (driver.Stmt, error) {
	return c.Conn.(driver.ConnPrepareContext).PrepareContext(ctx, c.change.Replace(query))
}

func (c *evil) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, c.change.Replace(query), args)
}

func (c *evil) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, c.change.Replace(query), args)
}

func (c *evil) Ping(ctx context.Context) error { return c.Conn.(driver.Pinger).Ping(ctx) }

func (c *evil) BeginTx(ctx context.Context, opts driver.TxOptions) (driver.Tx, error) {
	return c.Conn.(driver.ConnBeginTx).BeginTx(ctx, opts)
}

func (c *evil) ResetSession(ctx context.Context) error {
	return c.Conn.(driver.SessionResetter).ResetSession(ctx)
}

func (c *evil) CheckNamedValue(v *driver.NamedValue) error {
	if checker, ok := c.Conn.(driver.NamedValueChecker); ok {
		return checker.CheckNamedValue(v)
	}
	return driver.ErrSkip
}
