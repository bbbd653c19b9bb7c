package pglock_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// triggerOn gives lock_audit a trigger whose function has the body given.
func (o observer) triggerOn(when, body string) {
	o.t.Helper()
	run(o.t, o.db, "CREATE FUNCTION of_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+body+" END $$")
	run(o.t, o.db, "CREATE TRIGGER of_test "+when+" ON lock_audit FOR EACH ROW EXECUTE FUNCTION of_trigger()")
}

// TestAuditRowThatATriggerDrops: a lock without its row is not taken.
func TestAuditRowThatATriggerDrops(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		o.triggerOn("BEFORE INSERT", "RETURN CASE WHEN new.owner = 'dropped' THEN NULL ELSE new END;")
		s := pglock.NewSession(dial(t, driver, param), pglock.WithAudit())
		held := acquired(t, s, newTarget(t))
		target := newTarget(t)
		for range 2 {
			_, err := s.TryAcquire(bg, target, swanlock.WithOwner("dropped"))
			wantIs(t, err, pglock.ErrAudit)
			o.wantHeld(target)
		}
		_, err := s.Acquire(shortly(t), target, swanlock.WithOwner("dropped"), swanlock.WithShared())
		wantIs(t, err, pglock.ErrAudit)
		o.wantHeld(target)
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
	})
}

// TestAuditTriggerFails: an error of the audit's trigger is ErrAudit, and costs no
// lock.
func TestAuditTriggerFails(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, body := range map[string]string{
			"raises":  "RAISE 'no';",
			"divides": "new.ttl_ms := 1/0;",
			"denied":  "RAISE insufficient_privilege;",
			"a table": "INSERT INTO nowhere VALUES (1);",
		} {
			for _, when := range []string{"BEFORE", "AFTER"} {
				t.Run(name+" "+when, func(t *testing.T) {
					param, o := auditDatabase(t)
					o.triggerOn(when+" INSERT OR UPDATE", "IF new.owner = 'fails' OR TG_OP = 'UPDATE' THEN "+body+" END IF; RETURN new;")
					s := pglock.NewSession(dial(t, driver, param), pglock.WithAudit())
					target := newTarget(t)
					_, err := s.TryAcquire(bg, target, swanlock.WithOwner("fails"))
					wantIs(t, err, pglock.ErrAudit)
					o.wantHeld(target)
					held := acquired(t, s, target)
					wantIs(t, held.Refresh(bg), pglock.ErrAudit)
					o.wantHeld(target, held.BackendPID())
					wantIs(t, held.Release(bg), pglock.ErrAudit)
					wantIs(t, held.Err(), swanlock.ErrReleased)
					o.wantHeld(target)
				})
			}
		}
	})
}

// TestAuditTriggerFailsCallersTransaction: an acquire that makes the caller's
// transaction fail cannot unlock what it may have taken, so it ends the session, whose
// holders are told.
func TestAuditTriggerFailsCallersTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		o.triggerOn("BEFORE INSERT", "IF new.owner = 'fails' THEN RAISE 'no'; END IF; RETURN new;")
		conn := dial(t, driver, param)
		s := pglock.NewSession(conn, pglock.WithAudit())
		held := acquired(t, s, newTarget(t))
		run(t, conn, "BEGIN")
		target := newTarget(t)
		_, err := s.TryAcquire(bg, target, swanlock.WithOwner("fails"))
		wantIs(t, err, pglock.ErrAudit, pglock.ErrAbortedTransaction)
		wantIs(t, held.Err(), swanlock.ErrLost)
		o.wantSoonFree(target)
		o.wantSoonFree(held.Info().Target)
	})
}

// TestPoolAuditRowThatATriggerDrops: of many acquires that a Pool sends together those
// without a row fail, and cost the others neither lock nor row.
func TestPoolAuditRowThatATriggerDrops(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		o.triggerOn("BEFORE INSERT", "RETURN CASE WHEN new.owner = 'dropped' THEN NULL ELSE new END;")
		p, err := pglock.NewPool(openDB(t, driver, param), pglock.WithAudit(), pglock.WithMaxSessions(1))
		must(t, err)
		defer p.Close(bg)
		held, err := p.TryAcquire(bg, newTarget(t))
		must(t, err)
		var calls sync.WaitGroup
		for i := range 20 {
			calls.Go(func() {
				target := newTarget(t)
				if i%4 == 0 {
					_, err := p.TryAcquire(bg, target, swanlock.WithOwner("dropped"))
					wantIs(t, err, pglock.ErrAudit)
					return
				}
				l, err := p.TryAcquire(bg, target)
				if err == nil {
					err = l.Release(bg)
				}
				if err != nil {
					t.Errorf("a lock beside those without a row: %v", err)
				}
			})
		}
		calls.Wait()
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		if n := one[int](t, o.db, "SELECT count(*) FROM lock_audit WHERE end_reason IS DISTINCT FROM 'released'"); n != 0 {
			t.Errorf("%d rows are not closed as released", n)
		}
	})
}

// TestAuditOfASessionThatEnded: what ends a session is no fault of the audit's.
func TestAuditOfASessionThatEnded(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		s, conn := newSession(t, driver, pglock.WithAudit())
		held := acquired(t, s, newTarget(t))
		run(t, conn, "SET idle_in_transaction_session_timeout = 100")
		run(t, conn, "BEGIN")
		eventually(t, "the server has ended the session", func() bool { return !o.alive(held.BackendPID()) })
		_, err := s.TryAcquire(bg, newTarget(t))
		if err == nil || errors.Is(err, pglock.ErrAudit) {
			t.Errorf("got %v", err)
		}
		wantIs(t, held.Err(), swanlock.ErrLost)
	})
}
