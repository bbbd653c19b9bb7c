package main

import (
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/swanlake-io/swanlock/migrations"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	dsn := newDatabase(t)
	env := []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + dsn}
	hasTable := func() (ok bool) {
		if err := openDB(t, dsn).QueryRow("SELECT to_regclass('lock_audit') IS NOT NULL").Scan(&ok); err != nil {
			t.Fatal(err)
		}
		return ok
	}
	defer func() { // a user's own migrations are not in our way, nor we in theirs
		var tables string
		err := openDB(t, dsn).QueryRow("SELECT string_agg(tablename, ' ' ORDER BY tablename) FROM pg_tables WHERE schemaname = 'public'").Scan(&tables)
		if want := "lock_audit lock_fences " + migrations.Table; err != nil || tables != want {
			t.Errorf("tables %q, %v; want %q", tables, err, want)
		}
	}()
	for _, step := range []struct {
		do, says string
		table    bool
	}{
		{"status", "pending                      00001_lock_audit.sql\npending                      00002_lock_audit_inspect.sql\npending                      00003_fence_guard.sql\npending                      00004_lock_audit_success.sql\npending                      00005_lock_audit_long.sql\n", false},
		{"down", "nothing to do\n", false},
		{"up", "applied 00001_lock_audit.sql\napplied 00002_lock_audit_inspect.sql\napplied 00003_fence_guard.sql\napplied 00004_lock_audit_success.sql\napplied 00005_lock_audit_long.sql\n", true},
		{"up", "nothing to do\n", true},
		{"status", "  00005_lock_audit_long.sql\n", true},
		{"down", "removed 00005_lock_audit_long.sql\nremoved 00004_lock_audit_success.sql\nremoved 00003_fence_guard.sql\nremoved 00002_lock_audit_inspect.sql\nremoved 00001_lock_audit.sql\n", false},
		{"up", "applied 00001_lock_audit.sql\napplied 00002_lock_audit_inspect.sql\napplied 00003_fence_guard.sql\napplied 00004_lock_audit_success.sql\napplied 00005_lock_audit_long.sql\n", true},
	} {
		p := swanlockCommand(t, env, "migrate", step.do).start().want(0)
		if got := p.stdout.String(); !strings.HasSuffix(got, step.says) || p.stderr.Len() > 0 {
			t.Errorf("migrate %s says %q, %q; want %q", step.do, got, &p.stderr, step.says)
		}
		if got := hasTable(); got != step.table {
			t.Errorf("after migrate %s the table is there: %v", step.do, got)
		}
	}
}

// Many hosts may start at once, each with a migrate up.
func TestMigrateTogether(t *testing.T) {
	t.Parallel()
	env := []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + newDatabase(t)}
	var wg sync.WaitGroup
	var all [8]*tested
	for i := range all {
		all[i] = swanlockCommand(t, env, "migrate", "up").start()
	}
	for _, p := range all {
		wg.Go(func() { p.want(0) })
	}
	wg.Wait()
	applied := 0
	for _, p := range all {
		applied += strings.Count(p.stdout.String(), "applied")
	}
	if applied != 5 {
		t.Errorf("they applied %d migrations, want 5", applied)
	}
}

// What print prints makes a table that the audit can use.
func TestMigratePrint(t *testing.T) {
	t.Parallel()
	code, text, _ := runHere("migrate", "print")
	if code != 0 || strings.Contains(text, "goose") || strings.Contains(text, "DROP TABLE") || !strings.HasPrefix(text, "-- 00001_lock_audit.sql\nCREATE TABLE lock_audit (") {
		t.Fatalf("code %d:\n%s", code, text)
	}
	dsn := newDatabase(t)
	if _, err := openDB(t, dsn).Exec(text); err != nil {
		t.Fatal(err)
	}
	swanlockCommand(t, []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + dsn}, "run", "--audit", "t", "--", "true").start().want(0)
}

func TestUpSQL(t *testing.T) {
	got, err := upSQL(fstest.MapFS{
		"00001_a.sql": {Data: []byte("-- +goose Up\n-- +goose StatementBegin\nA;\n-- +goose StatementEnd\n\n-- +goose Down\nX;\n")},
		"00002_b.sql": {Data: []byte("-- +goose NO TRANSACTION\n-- +goose Up\nB; -- note\n-- +goose Down\nY;\n")},
		"readme.md":   {Data: []byte("no SQL")},
	})
	if want := "-- 00001_a.sql\nA;\n\n-- 00002_b.sql\nB; -- note\n"; err != nil || got != want {
		t.Errorf("upSQL = %q, %v; want %q", got, err, want)
	}
}
