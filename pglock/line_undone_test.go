package pglock_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/pglock"
)

// TestUndoneTicketKeepsTheLine: what a session has in a line stays while the ticket of a
// statement that was cancelled is given up there. A newcomer of another host joins the
// line's end at that moment, and starts no line of its own.
func TestUndoneTicketKeepsTheLine(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target, schema := observe(t), newTarget(t), evilSchema("undone", driver)
		db := evilDB(t, driver, schema, fmt.Sprintf(`
			CREATE FUNCTION %[1]s.pg_try_advisory_lock(a integer, b integer) RETURNS boolean LANGUAGE plpgsql AS $$
			BEGIN
				IF current_query() LIKE '%%AS alone%%' AND (SELECT last_value FROM %[1]s.calls) = 100 THEN
					PERFORM nextval('%[1]s.calls');
					RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';
				END IF;
				RETURN pg_catalog.pg_try_advisory_lock(a, b);
			END $$;
			CREATE FUNCTION %[1]s.pg_try_advisory_lock_shared(a integer, b integer) RETURNS boolean LANGUAGE plpgsql AS $$
			BEGIN
				IF current_query() LIKE '%%AS undone%%' THEN PERFORM nextval('%[1]s.calls'), pg_sleep(0.2); END IF;
				RETURN pg_catalog.pg_try_advisory_lock_shared(a, b);
			END $$`, schema))
		p := newPool(t, db, pglock.WithHeartbeat(time.Hour), pglock.WithMaxWaiters(0), pglock.WithLogger(nil))
		mine, _ := newSession(t, driver)
		other, _ := newSession(t, driver)
		held := acquired(t, mine, target)
		var order []string
		before := inLine(t, o, p, target, &order, "1", "2")
		time.Sleep(200 * time.Millisecond) // The pool forgets the numbers of the line.
		run(t, o.db, "SELECT setval('"+schema+".calls', 100)")
		refused := make(chan error, 1)
		go func() { _, err := p.Acquire(shortly(t), target); refused <- err }()
		eventually(t, "the ticket is given up", func() bool {
			return one[bool](t, o.db, "SELECT last_value > 101 FROM "+schema+".calls")
		})
		behind := inLine(t, o, other, target, &order, "3")
		if err := <-refused; err == nil {
			t.Error("the statement did not fail")
		}
		must(t, held.Release(bg))
		before()
		behind()
		if want := []string{"1", "2", "3"}; !slices.Equal(order, want) {
			t.Errorf("got the order %v, want %v", order, want)
		}
		o.wantTickets(target, 0)
		if n := one[int](t, o.db, `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2
			AND (classid::bigint << 32 | objid::bigint) & -262144 = $1::bigint`, pglock.TicketSpace(target)); n != 0 {
			t.Errorf("%d locks of the line are left, want none", n)
		}
	})
}
