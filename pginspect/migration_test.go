package pginspect_test

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestMigrationLetsAcquiresBy: while the second migration waits for a long
// transaction that has read the audit, audited acquires go on; when that ends,
// so does the migration.
func TestMigrationLetsAcquiresBy(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		migrateTo(t, on, 1)
		tx, err := on.BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		one[int](t, tx, "SELECT count(*) FROM lock_audit")

		done := make(chan error, 1)
		go func() { done <- migrate(on) }()
		s := pglock.NewSession(conn(t, on), audited...)
		defer s.Close(bg)
		for range 20 {
			// A migration that queued for the table would make these wait for the
			// transaction, which does not end.
			ctx, cancel := context.WithTimeout(bg, patience)
			held, err := s.TryAcquire(ctx, "t")
			must(t, err)
			must(t, held.Release(ctx))
			cancel()
			time.Sleep(20 * time.Millisecond)
		}
		select {
		case err := <-done:
			t.Fatalf("the migration did not wait: %v", err)
		default:
		}
		must(t, tx.Rollback())
		must(t, <-done)
		page, err := pginspect.History(bg, on, pginspect.Query{Target: "t"})
		must(t, err)
		want(t, "records", len(page.Records), 20)
		want(t, "valid indexes", one[int](t, on, "SELECT count(*) FROM pg_index WHERE indrelid = 'lock_audit'::regclass AND indisvalid AND indisready"), 5)

		// Down and up again, as after an index build that was interrupted.
		p, err := provider(on)
		must(t, err)
		_, err = p.DownTo(bg, 1)
		must(t, err)
		exec(t, on, "CREATE INDEX lock_audit_span ON lock_audit (id)")
		must(t, migrate(on))
		want(t, "the index is the migration's", one[bool](t, on, "SELECT pg_get_indexdef('lock_audit_span'::regclass) LIKE '%gist%'"), true)
	})
}

// TestMigrationOfTheFirstSchema: a migration whose table is no more fails, and leaves
// alone the table of a later schema of the search_path, which is another program's.
func TestMigrationOfTheFirstSchema(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, from := range []int64{1, 3, 4} {
			name := newDatabase(t)
			admin := connect(t, driver, name)
			in := func(path string) *sql.DB { return openURL(t, driver, address(t, name, "")+"&search_path="+path) }
			for _, schema := range []string{"first", "second"} {
				exec(t, admin, "CREATE SCHEMA "+schema)
				migrateTo(t, in(schema), from)
			}
			look := func() string {
				return one[string](t, admin, `SELECT string_agg(a.attname, ' ' ORDER BY a.attnum) || (SELECT string_agg(pg_get_indexdef(i.indexrelid), ' ' ORDER BY 1) FROM pg_index i WHERE i.indrelid = 'second.lock_audit'::regclass)
					FROM pg_attribute a WHERE a.attrelid = 'second.lock_audit'::regclass AND a.attnum > 0`)
			}
			before := look()
			exec(t, admin, "DROP TABLE first.lock_audit")
			if err := migrate(in("first,second")); err == nil {
				t.Errorf("from version %d: no error", from)
			}
			want(t, "the second table, from version "+sprint(from), look(), before)
			must(t, migrate(in("second,first")))
		}
	})
}

// TestOldAudit: without the fourth migration a success can be neither noted nor
// looked up, and the error and the doctor say so. The history is there.
func TestOldAudit(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		migrateTo(t, on, 3)
		_, _, look := pginspect.LastSuccess(bg, on, "t")
		for what, err := range map[string]error{"look for the last success": look, "note a success": pginspect.Succeed(bg, on, "t")} {
			says := "pginspect: " + what + ": lock_audit is of an earlier version: run swanlock migrate up: "
			if !errors.Is(err, pginspect.ErrOldAudit) || !strings.HasPrefix(err.Error(), says) {
				t.Errorf("got %v, want %q and %v", err, says, pginspect.ErrOldAudit)
			}
		}
		id := addRow(t, on, "t", "me", time.Hour, time.Minute)
		for _, target := range []string{"t", "t*"} {
			page, err := pginspect.History(bg, on, pginspect.Query{Target: target})
			must(t, err)
			want(t, "record", page.Records[0].ID, id)
		}
		records, err := pginspect.HeldAt(bg, on, time.Now().Add(-time.Hour+time.Second))
		must(t, err)
		want(t, "held then", records[0].ID, id)
		report, err := pginspect.Check(bg, on)
		must(t, err)
		i := slices.IndexFunc(report.Findings, func(f pginspect.Finding) bool { return f.Subject == "audit" })
		want(t, "the doctor's fix", report.Findings[i].Fix, "swanlock migrate up")
	})
}
