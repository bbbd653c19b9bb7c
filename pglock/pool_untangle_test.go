package pglock_test

import (
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// refusing has the audit's table run body before each row that is written.
func (o observer) refusing(body string) {
	o.t.Helper()
	run(o.t, o.db, "CREATE FUNCTION refuses() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "+body+" RETURN new; END $$")
	run(o.t, o.db, "CREATE TRIGGER refuses BEFORE INSERT ON lock_audit FOR EACH ROW EXECUTE FUNCTION refuses()")
}

// A holder passes its lock on to a reader, whose row is refused: the release is as
// good as any, the reader is told, and nothing is held.
func TestPoolPassesToAReaderInVain(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		o.refusing("IF new.mode = 'shared' THEN RAISE EXCEPTION 'no reader' USING ERRCODE = '23514'; END IF;")
		p, target := newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(time.Hour)), newTarget(t)
		held := acquired(t, p, target)
		got := make(chan error, 1)
		go func() {
			_, err := p.Acquire(shortly(t), target, swanlock.WithShared())
			got <- err
		}()
		o.wantTickets(target, 1)
		time.Sleep(100 * time.Millisecond)
		must(t, held.Release(bg))
		wantIs(t, <-got, pglock.ErrAudit)
		o.wantReasons(target, "released")
		o.wantSoonFree(target)
		must(t, acquired(t, pglock.NewSession(dial(t, driver, param)), target).Release(bg))
	})
}

// The row of a lock that was unlocked by a batch that failed ends before the next
// holder's begins, also if that one's row is not committed yet.
func TestPoolAuditAfterAFailedBatch(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		o.refusing("IF new.owner = 'bad' THEN PERFORM pg_sleep(0.3); RAISE EXCEPTION 'bad' USING ERRCODE = '23514'; END IF; IF new.owner = 'slow' THEN PERFORM pg_sleep(1.5); END IF;")
		p, target := newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(time.Hour)), newTarget(t)
		held := acquired(t, p, target)
		give := pglock.HoldTurn(held)
		released, refused, next := make(chan error, 1), make(chan error, 1), make(chan error, 1)
		go func() { released <- held.Release(bg) }()
		go func() {
			_, err := p.TryAcquire(bg, newTarget(t), swanlock.WithOwner("bad"))
			refused <- err
		}()
		time.Sleep(200 * time.Millisecond)
		s := pglock.NewSession(dial(t, driver, param), pglock.WithAudit())
		go func() {
			l, err := s.TryAcquire(bg, target, swanlock.WithOwner("slow"))
			for ; errors.Is(err, swanlock.ErrNotAcquired); l, err = s.TryAcquire(bg, target, swanlock.WithOwner("slow")) {
				time.Sleep(2 * time.Millisecond)
			}
			if err == nil {
				err = l.Release(bg)
			}
			next <- err
		}()
		time.Sleep(100 * time.Millisecond)
		give()
		must(t, <-released)
		wantIs(t, <-refused, pglock.ErrAudit)
		must(t, <-next)
		o.wantSound()
		o.wantReasons(target, "released", "released")
	})
}

// A Pool's sessions speak UTF-8, whatever the database's encoding: readers share
// statements there, too, and texts are kept.
func TestPoolInAnotherEncoding(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, encoding := range []string{"SQL_ASCII", "LATIN1"} {
			dbname := pgtest.NewDatabaseIn(t, encoding)
			o := observe(t, dbname)
			_, err := provider(o.db).Up(bg)
			must(t, err)
			params := []string{dbname}
			if driver == "pgx-simple" { // It refuses to send anything otherwise.
				params = append(params, "client_encoding=UTF8")
			}
			p, target := newPool(t, openDB(t, driver, params...), pglock.WithAudit(), pglock.WithHeartbeat(time.Hour)), newTarget(t)+"/ü"
			var readers []*pglock.PostgresLock
			for range 3 {
				readers = append(readers, acquired(t, p, target, swanlock.WithShared()))
			}
			for _, l := range readers {
				o.wantHeld(target, backendOf(l))
				must(t, l.Release(bg))
			}
			o.wantHeld(target)
			for _, r := range o.wantReasons(target, "released", "released", "released") {
				if driver == "postgres" && r.target != target { // The observer reads with lib/pq's UTF-8.
					t.Errorf("%s: the audit has %q, want %q", encoding, r.target, target)
				}
			}
		}
	})
}
