package pginspect_test

import (
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestCheckRows: what keeps a role's rows out of the audit or the fences, although it
// may write to the table, is found, and the statement that mends it does so.
func TestCheckRows(t *testing.T) {
	oneDriver(t, func(t *testing.T, driver string) {
		name := newDatabase(t)
		admin := connect(t, driver, name)
		must(t, migrate(admin))
		role := newRole(t)
		t.Cleanup(func() { exec(t, admin, "DROP OWNED BY "+role) })
		exec(t, admin, "GRANT SELECT, INSERT, UPDATE, DELETE ON lock_audit TO "+role)
		on := connect(t, driver, name, role)
		check := func(subject string, level pginspect.Level, is string) pginspect.Finding {
			t.Helper()
			r, err := pginspect.Check(bg, on)
			must(t, err)
			f := finding(r, subject)
			if f.Level != level || !strings.Contains(f.Is, is) || level != "" && (f.Why == "" || f.Fix == "") {
				t.Errorf("got %+v, want %s, %q", f, level, is)
			}
			if level == pginspect.Warning && r.Well {
				t.Error("all is well")
			}
			return f
		}
		audits := func() error {
			c := conn(t, on)
			defer c.Close()
			held, err := pglock.NewSession(c, pglock.WithAudit()).TryAcquire(bg, newTarget(t))
			if err == nil {
				err = held.Release(bg)
			}
			return err
		}

		must(t, audits())
		check("row security: audit", "", "")
		exec(t, admin, "ALTER TABLE lock_audit ENABLE ROW LEVEL SECURITY")
		if audits() == nil {
			t.Error("an audited acquire needs no policy")
		}
		f := check("row security: audit", pginspect.Warning, "no policy")
		exec(t, admin, "CREATE POLICY one ON lock_audit FOR INSERT WITH CHECK (true)")
		exec(t, admin, "CREATE POLICY two ON lock_audit FOR SELECT TO "+role+" USING (true)")
		check("row security: audit", pginspect.Warning, "no policy")
		exec(t, admin, f.Fix)
		must(t, audits())
		check("row security: audit", pginspect.Note, "has policies")
		exec(t, admin, "ALTER TABLE lock_audit DISABLE ROW LEVEL SECURITY")
		check("row security: audit", "", "")

		exec(t, admin, "CREATE FUNCTION drops() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'")
		exec(t, admin, "CREATE TRIGGER after AFTER UPDATE ON lock_audit FOR EACH ROW EXECUTE FUNCTION drops()")
		check("triggers: audit", "", "")
		exec(t, admin, "CREATE TRIGGER keeps BEFORE UPDATE ON lock_audit FOR EACH ROW EXECUTE FUNCTION drops()")
		check("triggers: audit", pginspect.Note, "lock_audit has triggers before a row is written: keeps")
		exec(t, admin, "ALTER TABLE lock_audit DISABLE TRIGGER keeps")
		check("triggers: audit", "", "")

		check("rights: fences", pginspect.Note, "public.lock_fences")
		exec(t, admin, "CREATE TABLE guarded (id int)")
		exec(t, admin, "CREATE TRIGGER fenced BEFORE INSERT ON guarded FOR EACH ROW EXECUTE FUNCTION lock_fenced()")
		check("rights: fences", pginspect.Note, "public.lock_fences")
		exec(t, admin, "GRANT INSERT ON guarded TO "+role)
		const write = "INSERT INTO guarded SELECT 1 WHERE lock_fence(1, 1)"
		if _, err := on.ExecContext(bg, write); err == nil {
			t.Error("a fenced write needs no rights on lock_fences")
		}
		f = check("rights: fences", pginspect.Warning, "public.lock_fences")
		exec(t, admin, f.Fix)
		exec(t, on, write)
		check("rights: fences", "", "")
	})
}
