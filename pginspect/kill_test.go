package pginspect_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

func record(t *testing.T, on pginspect.DB, target string) pginspect.Record {
	t.Helper()
	page, err := pginspect.History(bg, on, pginspect.Query{Target: target})
	must(t, err)
	return page.Records[len(page.Records)-1] // the first hold
}

// TestKill: the holder loses the lock and learns it, the next gets it, and the
// row says who did it.
func TestKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		_, held := acquire(t, on, target, append(audited, pglock.WithHeartbeat(50*time.Millisecond)))
		wait(t, on, target)
		killed, err := pginspect.Kill(bg, on, of(t, on, target)[0].Session, "ann@desk")
		must(t, err)
		want(t, "rows", killed.Rows, 1)
		select {
		case <-held.Done():
		case <-time.After(patience):
			t.Fatal("the holder does not learn it")
		}
		if !errors.Is(held.Err(), swanlock.ErrLost) {
			t.Errorf("the holder's error is %v", held.Err())
		}
		eventually(t, "the row", func() bool { return record(t, on, target).State == pginspect.Ended })
		r := record(t, on, target)
		want(t, "end", r.End, "killed")
		want(t, "by", r.EndedBy, "ann@desk")
	})
}

// TestKillWithNextHolder: the next holder, which closes the dead one's row with
// its own grant, does not take away who ended it, and the intervals do not
// overlap.
func TestKillWithNextHolder(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		for range 10 {
			s := pglock.NewSession(conn(t, on), audited...)
			_, err := s.TryAcquire(bg, target, swanlock.WithTTL(time.Minute))
			must(t, err)
			victim := of(t, on, target)[0].Session
			next := pglock.NewSession(conn(t, on), audited...)
			got := make(chan error)
			go func() {
				held, err := next.Acquire(bg, target)
				if err == nil {
					err = held.Release(bg)
				}
				got <- err
			}()
			_, err = pginspect.Kill(bg, on, victim, "ann")
			must(t, err)
			must(t, <-got)
			next.Close(bg)
			s.Close(bg)
		}
		want(t, "killed by ann", one[int](t, on, "SELECT count(*) FROM lock_audit WHERE target = $1 AND end_reason = 'killed' AND ended_by = 'ann'", target), 10)
		want(t, "overlaps", one[int](t, on, `SELECT count(*) FROM lock_audit a JOIN lock_audit b ON a.key = b.key AND a.id < b.id
			WHERE a.target = $1 AND a.released_at > b.acquired_at`, target), 0)
	})
}

// TestKillInTransaction: a holder whose own transaction has locked its row, and
// does not end, is ended all the same, and its row closed.
func TestKillInTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		c := conn(t, on)
		s := pglock.NewSession(c, audited...)
		defer s.Close(bg)
		_, err := s.TryAcquire(bg, target)
		must(t, err)
		exec(t, c, "BEGIN")
		exec(t, c, "UPDATE lock_audit SET refreshed_at = clock_timestamp() WHERE target = $1", target)
		ctx, cancel := context.WithTimeout(bg, patience)
		defer cancel()
		killed, err := pginspect.Kill(ctx, on, of(t, on, target)[0].Session, "ann")
		must(t, err)
		want(t, "rows", killed.Rows, 1)
		r := record(t, on, target)
		want(t, "end", r.End, "killed")
		want(t, "by", r.EndedBy, "ann")
	})
}

// TestKillOnlyWhatWasSeen: a session that is gone, or that has no lock, or is a
// later one with that process id, is left alone.
func TestKillOnlyWhatWasSeen(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		_, held := acquire(t, on, target, audited)
		seen := of(t, on, target)[0].Session
		earlier := seen
		earlier.Started = seen.Started.Add(-time.Second)
		idle := conn(t, on)
		for name, s := range map[string]pginspect.Session{
			"an earlier session": earlier,
			"nobody":             {PID: 1 << 30, Started: seen.Started},
			"without a lock":     {PID: one[int](t, idle, "SELECT pg_backend_pid()"), Started: one[time.Time](t, idle, "SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()")},
		} {
			if _, err := pginspect.Kill(bg, on, s, "ann"); !errors.Is(err, pginspect.ErrNoSession) {
				t.Errorf("%s: got %v, want %v", name, err, pginspect.ErrNoSession)
			}
		}
		exec(t, idle, "SELECT 1")
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		r := record(t, on, target)
		want(t, "end", r.End, "released")
		want(t, "by", r.EndedBy, "")
	})
}

// TestKillTakesWhatTheDoctorSays: a role that the doctor lets kill does so, and
// pg_signal_backend alone is not enough.
func TestKillTakesWhatTheDoctorSays(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		name := newDatabase(t)
		admin, role, holder := connect(t, driver, name), newRole(t), newRole(t)
		acquire(t, connect(t, driver, name, holder), "t", nil)
		rights := func() pginspect.Finding {
			r, err := pginspect.Check(bg, connect(t, driver, name, role))
			must(t, err)
			return finding(r, "rights: kill")
		}
		kill := func() error {
			on := connect(t, driver, name, role)
			_, err := pginspect.Kill(bg, on, of(t, on, "t")[0].Session, "ann")
			return err
		}
		exec(t, admin, "GRANT pg_signal_backend TO "+role)
		err := kill()
		if !errors.Is(err, pginspect.ErrNotAllowed) {
			t.Fatalf("got %v, want %v", err, pginspect.ErrNotAllowed)
		}
		f := rights()
		want(t, "the level", f.Level, pginspect.Note)
		exec(t, admin, f.Fix)
		want(t, "the level after "+f.Fix, rights().Level, pginspect.OK)
		must(t, kill())
	})
}

// TestKillNotAllowed: without the right nothing is done, also to the rows.
func TestKillNotAllowed(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		admin, role := connect(t, driver, newDatabase(t)), newRole(t)
		must(t, migrate(admin))
		exec(t, admin, "GRANT SELECT, UPDATE, INSERT ON lock_audit TO "+role)
		t.Cleanup(func() { exec(t, admin, "DROP OWNED BY "+role) })
		_, held := acquire(t, admin, "t", audited)
		on := connect(t, driver, one[string](t, admin, "SELECT current_database()"), role)
		s := of(t, on, "t")[0].Session
		want(t, "its start is known", s.Started.IsZero(), true)
		if _, err := pginspect.Kill(bg, on, s, "ann"); !errors.Is(err, pginspect.ErrNotAllowed) {
			t.Errorf("got %v, want %v", err, pginspect.ErrNotAllowed)
		}
		want(t, "rows with a name", one[int](t, admin, "SELECT count(*) FROM lock_audit WHERE ended_by IS NOT NULL"), 0)
		must(t, held.Refresh(bg))
	})
}

// TestKillWithoutAudit: it needs no table, and works on the first migration.
func TestKillWithoutAudit(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		kill := func() {
			t.Helper()
			killed, err := pginspect.Kill(bg, on, of(t, on, "t")[0].Session, "ann")
			must(t, err)
			want(t, "rows", killed.Rows, 0)
			want(t, "holders", len(of(t, on, "t")), 0)
		}
		acquire(t, on, "t", nil)
		kill()
		migrateTo(t, on, 1)
		acquire(t, on, "t", audited)
		kill()
	})
}
