package pginspect_test

import (
	"context"
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
