//go:build unix

package pglock_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	mrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// tickets counts the places taken in the line for the target.
func (o observer) tickets(target string) int {
	o.t.Helper()
	return one[int](o.t, o.db, `SELECT count(*) FROM pg_catalog.pg_locks
		WHERE locktype = 'advisory' AND objsubid = 2 AND objid::bigint & 262143 > 0 AND granted AND mode = 'ExclusiveLock' AND (classid::bigint << 32 | objid::bigint) & -262144 = $1::bigint`,
		pglock.TicketSpace(target))
}

// wantTickets waits until so many places are taken.
func (o observer) wantTickets(target string, n int) {
	o.t.Helper()
	eventually(o.t, fmt.Sprintf("%d wait in line", n), func() bool { return o.tickets(target) == n })
}

// childInLine waits for the lock on behalf of each number that it is told, and
// writes the number down while it holds the lock. The target is how it waits,
// and the table to write to.
func childInLine(db *sql.DB, target string) error {
	how, table, _ := strings.Cut(target, " ")
	var opts []pglock.CommonOption
	if strings.HasPrefix(how, "polling") {
		opts = append(opts, pglock.WithPolling())
	}
	var pool *pglock.Pool
	if strings.HasSuffix(how, "pool") {
		var common []pglock.PoolOption
		for _, opt := range opts {
			common = append(common, opt)
		}
		var err error
		if pool, err = pglock.NewPool(db, common...); err != nil {
			return err
		}
	}
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		n := in.Text()
		go func() {
			err := func() error {
				var l swanlock.Locker = pool
				if pool == nil {
					conn, err := db.Conn(bg)
					if err != nil {
						return err
					}
					var common []pglock.SessionOption
					for _, opt := range opts {
						common = append(common, opt)
					}
					l = pglock.NewSession(conn, common...)
				}
				held, err := l.Acquire(bg, table)
				if err != nil {
					return err
				}
				if _, err := db.Exec("INSERT INTO " + table + " (waiter) VALUES (" + n + ")"); err != nil {
					return err
				}
				return held.Release(bg)
			}()
			if err != nil {
				fmt.Println("error:", err)
			}
			fmt.Println("served", n)
		}()
	}
	return nil
}

// TestLineOfProcesses: waiters of several processes are served in the order in
// which they came, though some processes are killed while they line up and while
// they are served.
func TestLineOfProcesses(t *testing.T) {
	t.Parallel()
	const processes = 4
	for _, kind := range []struct {
		name    string
		waiters int
	}{{"pool", 200}, {"session", 40}, {"polling pool", 40}, {"polling session", 40}} {
		t.Run(kind.name, func(t *testing.T) {
			eachDriver(t, func(t *testing.T, driver string) {
				if strings.HasPrefix(kind.name, "polling") && testing.Short() {
					t.Skip("takes its time")
				}
				o := observe(t)
				table := "line_" + strings.ToLower(rand.Text())
				run(t, o.db, "CREATE TABLE "+table+" (id bigint GENERATED ALWAYS AS IDENTITY, waiter int)")
				holder, _ := newSession(t, "pgx")
				held := acquired(t, holder, table)
				how := strings.ReplaceAll(kind.name, " ", "-")
				var procs []*child
				for range processes {
					procs = append(procs, startChild(t, "line", driver, how+" "+table))
				}
				of := make([]int, kind.waiters) // the process of each waiter
				inLine := make([]int, processes)
				alive := []int{0, 1, 2, 3}
				kill := func() {
					i := mrand.IntN(len(alive))
					dead := alive[i]
					alive = append(alive[:i], alive[i+1:]...)
					must(t, procs[dead].Cmd.Process.Kill())
					inLine[dead] = 0
				}
				total := func() (n int) {
					for _, w := range inLine {
						n += w
					}
					return n
				}
				for n := range kind.waiters {
					if n == kind.waiters*3/4 {
						kill()
						o.wantTickets(table, total())
					}
					p := alive[mrand.IntN(len(alive))]
					of[n] = p
					fmt.Fprintln(procs[p].Stdin, n)
					inLine[p]++
					o.wantTickets(table, total())
				}
				must(t, held.Release(bg))
				rows := func() int { return one[int](t, o.db, "SELECT count(*) FROM "+table) }
				eventually(t, "some are served", func() bool { return rows() >= kind.waiters/10 })
				kill()
				survivors := []int{}
				for n, p := range of {
					if slices.Contains(alive, p) {
						survivors = append(survivors, n)
					}
				}
				for _, p := range alive {
					for left := inLine[p]; left > 0; left-- {
						if line := procs[p].Says(); !strings.HasPrefix(line, "served ") {
							t.Error(line)
						}
					}
				}
				var order []int
				list, err := o.db.Query("SELECT waiter FROM " + table + " ORDER BY id")
				must(t, err)
				defer list.Close()
				for list.Next() {
					var n int
					must(t, list.Scan(&n))
					order = append(order, n)
				}
				must(t, list.Err())
				// What the dead sent last may come late: nothing fences it here.
				order = slices.DeleteFunc(order, func(n int) bool { return !slices.Contains(alive, of[n]) })
				if !slices.Equal(order, survivors) {
					t.Errorf("served in the order %v, want that of arrival: %v", order, survivors)
				}
				o.wantTickets(table, 0)
				o.wantSoonFree(table)
			})
		})
	}
}

// waitsFor starts an Acquire and returns once it is in line.
func waitsFor(t *testing.T, o observer, ctx context.Context, l swanlock.Locker, target string, opts ...swanlock.Option) <-chan outcome {
	t.Helper()
	before := o.tickets(target)
	got := make(chan outcome, 1)
	go func() { got <- outcomeOf(l.Acquire(ctx, target, opts...)) }()
	o.wantTickets(target, before+1)
	return got
}

// inOrder wants next to be served before after, and frees what they got.
func inOrder(t *testing.T, next, after <-chan outcome) {
	t.Helper()
	select {
	case out := <-next:
		must(t, out.get(t).Release(bg))
	case out := <-after:
		t.Error("the last waiter was served first")
		must(t, out.get(t).Release(bg))
		must(t, (<-next).get(t).Release(bg))
		return
	}
	must(t, (<-after).get(t).Release(bg))
}

type outcome struct {
	held swanlock.DistributedLock
	err  error
}

func outcomeOf(held swanlock.DistributedLock, err error) outcome { return outcome{held, err} }

// get is the lock that a wait must have come to.
func (o outcome) get(t *testing.T) swanlock.DistributedLock {
	t.Helper()
	must(t, o.err)
	return o.held
}

// TestLineInTransaction: a wait inside the caller's transaction keeps its place
// but never aborts it, which a wait in the server that times out would.
func TestLineInTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		s, conn := newSession(t, driver)
		run(t, conn, "BEGIN")
		run(t, conn, "SELECT pg_current_xact_id()")
		got := waitsFor(t, o, shortly(t), s, target)
		later, _ := newSession(t, driver)
		after := waitsFor(t, o, shortly(t), later, target)
		time.Sleep(600 * time.Millisecond) // longer than a wait in the server would take
		must(t, held.Release(bg))
		l := (<-got).get(t)
		run(t, conn, "COMMIT")
		must(t, l.Release(bg))
		must(t, (<-after).get(t).Release(bg))
		o.wantTickets(target, 0)
	})
}

// TestLineWithOptions: the options work after a wait too: the fence is newer
// than the grant, the TTL starts after the wait, the row is written, and the
// session holds the lock once.
func TestLineWithOptions(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, locker := range map[string]func(t *testing.T) swanlock.Locker{
			"session": func(t *testing.T) swanlock.Locker { s, _ := newSession(t, driver, pglock.WithAudit()); return s },
			"pool":    func(t *testing.T) swanlock.Locker { return newPool(t, openDB(t, driver), pglock.WithAudit()) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o, target := observe(t), newTarget(t)
				a, b := locker(t), locker(t)
				held := acquired(t, a, target, swanlock.WithFence())
				got := waitsFor(t, o, shortly(t), b, target, swanlock.WithFence(), swanlock.WithTTL(time.Second), swanlock.WithOwner("b"))
				time.Sleep(1200 * time.Millisecond)
				must(t, held.Release(bg))
				l := (<-got).get(t)
				if l.Info().Fence <= held.Info().Fence {
					t.Errorf("got the fence %d after %d", l.Info().Fence, held.Info().Fence)
				}
				must(t, l.Refresh(bg))
				if n := one[int](t, o.db, "SELECT count(*) FROM lock_audit WHERE target = $1::text AND owner = 'b' AND released_at IS NULL", target); n != 1 {
					t.Errorf("got %d open rows, want 1", n)
				}
				must(t, l.Release(bg))
				o.wantHeld(target)
				o.wantTickets(target, 0)
			})
		}
	})
}

// TestLineOfReadersAndWriters: readers one after the other have the lock
// together, and a writer among them is not starved by readers that come later.
func TestLineOfReadersAndWriters(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		pool := newPool(t, openDB(t, driver))
		other, _ := newSession(t, driver)
		first := waitsFor(t, o, shortly(t), pool, target, swanlock.WithShared())
		second := waitsFor(t, o, shortly(t), pool, target, swanlock.WithShared())
		third := waitsFor(t, o, shortly(t), other, target, swanlock.WithShared())
		writer := waitsFor(t, o, shortly(t), newPool(t, openDB(t, driver)), target)
		late := waitsFor(t, o, shortly(t), pool, target, swanlock.WithShared())
		must(t, held.Release(bg))
		readers := []swanlock.DistributedLock{(<-first).get(t), (<-second).get(t), (<-third).get(t)}
		if n := len(o.holders(target)); n < 2 {
			t.Errorf("got readers on %d sessions, want 2 at least", n)
		}
		select {
		case <-writer:
			t.Fatal("a writer among readers")
		case <-late:
			t.Fatal("a reader overtook a writer")
		case <-time.After(50 * time.Millisecond):
		}
		if _, err := pool.TryAcquire(bg, target, swanlock.WithShared()); err == nil {
			t.Error("a try overtook a writer")
		}
		for _, r := range readers {
			must(t, r.Release(bg))
		}
		w := (<-writer).get(t)
		select {
		case <-late:
			t.Fatal("a reader with a writer")
		case <-time.After(20 * time.Millisecond):
		}
		must(t, w.Release(bg))
		must(t, (<-late).get(t).Release(bg))
		o.wantTickets(target, 0)
	})
}

// TestLineRunsOutOfNumbers: when the numbers are used up, newcomers wait until
// the line is empty, and it starts again.
func TestLineRunsOutOfNumbers(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		run(t, o.db, "SELECT 1")
		last := dial(t, driver)
		class, slot := pglock.Slots(target, pglock.LastNumber)
		run(t, last, "SELECT pg_advisory_lock($1, $2), pg_advisory_lock_shared($1, $2 - $3::integer)", class, slot, pglock.LastNumber)
		s, _ := newSession(t, driver)
		got := make(chan outcome, 1)
		go func() { got <- outcomeOf(s.Acquire(shortly(t), target)) }()
		time.Sleep(50 * time.Millisecond)
		if n := o.tickets(target); n != 1 {
			t.Fatalf("got %d tickets, want the last alone", n)
		}
		run(t, last, "SELECT pg_advisory_unlock_all()")
		o.wantTickets(target, 1)
		must(t, held.Release(bg))
		must(t, (<-got).get(t).Release(bg))
		o.wantTickets(target, 0)
	})
}

// TestLineBehindOpenRows: a waiter on whose connection rows are read keeps its place, and
// goes on when they are closed.
func TestLineBehindOpenRows(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		s, conn := newSession(t, driver, pglock.WithPolling())
		got := waitsFor(t, o, shortly(t), s, target)
		rows, err := conn.QueryContext(bg, "SELECT generate_series(1, 100000)")
		must(t, err)
		rows.Next()
		must(t, held.Release(bg))
		time.Sleep(600 * time.Millisecond)
		must(t, rows.Close())
		must(t, (<-got).get(t).Release(bg))
	})
}
