//go:build unix

package pglock_test

import (
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// children return an error, which fails the test.
var children = map[string]pgtest.ChildFunc{
	"hold":    onSession(childHolds),
	"pooled":  onPool(childHolds),
	"wait":    onSession(childWaits),
	"contend": onSession(childContends, pglock.WithAudit()),
	"line":    childInLine,
}

// onSession makes a child of what needs one Session.
func onSession(f func(l swanlock.Locker, target string) error, opts ...pglock.SessionOption) pgtest.ChildFunc {
	return func(db *sql.DB, target string) error {
		conn, err := db.Conn(bg)
		if err != nil {
			return err
		}
		return f(pglock.NewSession(conn, opts...), target)
	}
}

// onPool makes a child of what needs a Pool.
func onPool(f func(l swanlock.Locker, target string) error) pgtest.ChildFunc {
	return func(db *sql.DB, target string) error {
		p, err := pglock.NewPool(db)
		if err != nil {
			return err
		}
		return f(p, target)
	}
}

const stoppedTTL = 2 * time.Second

// childHolds takes the lock, and when it notices that it stood still asks
// whether it holds it. It has one thread for Go code and never lets go of it,
// so that no timer of ours can have run before.
func childHolds(l swanlock.Locker, target string) error {
	held, err := l.TryAcquire(bg, target, swanlock.WithTTL(stoppedTTL))
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(1)
	fmt.Println("held")
	for last := time.Now(); ; {
		now := time.Now()
		if now.Sub(last) > stoppedTTL/2 {
			break
		}
		last = now
	}
	if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
		return fmt.Errorf("the first Err after a stop is %v", err)
	}
	fmt.Println("expired")
	return nil
}

// childWaits waits for the lock and keeps it until its input ends.
func childWaits(l swanlock.Locker, target string) error {
	fmt.Println("waiting")
	held, err := l.Acquire(bg, target)
	if err != nil {
		return err
	}
	fmt.Println("held")
	io.Copy(io.Discard, os.Stdin)
	return held.Release(bg)
}

// childContends takes and frees locks until its input ends.
func childContends(l swanlock.Locker, target string) error {
	ended := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(ended)
	}()
	for {
		select {
		case <-ended:
			return nil
		default:
		}
		held, err := l.Acquire(bg, target)
		if err != nil {
			return err
		}
		time.Sleep(rand.N(3 * time.Millisecond))
		if err := held.Release(bg); err != nil {
			return err
		}
	}
}

// TestProcessStopped: a holder that is stopped loses its lock within its TTL to
// another process, and when it runs again, the first thing it asks tells it.
func TestProcessStopped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, how := range []string{"hold", "pooled"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				stopProcess(t, how, driver)
			})
		}
	})
}

func stopProcess(t *testing.T, how, driver string) {
	target, late := newTarget(t), watchScheduler(t)
	holder := startChild(t, how, driver, target)
	holder.WantSays("held")
	waiter := startChild(t, "wait", driver, target)
	waiter.WantSays("waiting")
	must(t, holder.Cmd.Process.Signal(syscall.SIGSTOP))
	stopped := time.Now()
	waiter.WantSays("held")
	if took, most := time.Since(stopped), stoppedTTL+2*time.Second+late(); took > most {
		t.Errorf("another process held the lock %v after the stop, want at most %v", took, most)
	}
	time.Sleep(time.Until(stopped.Add(stoppedTTL))) // the TTL began before the stop, and a shorter one is not noticed
	must(t, holder.Cmd.Process.Signal(syscall.SIGCONT))
	holder.WantSays("expired")
}

// TestProcessKilled: a holder that dies frees its lock at once.
func TestProcessKilled(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		target, o := newTarget(t), observe(t)
		holder := startChild(t, "wait", driver, target)
		holder.WantSays("waiting")
		holder.WantSays("held")
		if len(o.holders(target)) != 1 {
			t.Fatal("the child does not hold the lock")
		}
		must(t, holder.Cmd.Process.Kill())
		o.wantSoonFree(target)
	})
}

// TestAuditOfProcesses lets processes contend for a key while some are killed,
// and proves from the audit that no two exclusive intervals overlap, that the
// fences rise with them, and that every row of the dead was closed.
func TestAuditOfProcesses(t *testing.T) {
	const processes = 4
	span := 3 * time.Second
	if testing.Short() {
		span = time.Second
	}
	eachDriver(t, func(t *testing.T, driver string) {
		target, o := newTarget(t), observe(t)
		key := int64(pglock.KeyOf(target))
		reasons := func(reason string) int {
			return one[int](t, o.db, "SELECT count(*) FROM lock_audit WHERE key = $1::bigint AND end_reason IS NOT DISTINCT FROM NULLIF($2::text, '')", key, reason)
		}
		contend := make([]*child, processes)
		for i := range contend {
			contend[i] = startChild(t, "contend", driver, target)
		}
		kills := 0
		for start := time.Now(); time.Since(start) < span || reasons("killed") < 3 && time.Since(start) < soon; kills++ {
			i := rand.IntN(processes)
			next, before := startChild(t, "contend", driver, target), len(o.rows(target))
			// On a busy machine it takes a process long to begin.
			pgtest.Eventually(t, "a grant since the last kill", func() bool { return len(o.rows(target)) > before })
			time.Sleep(rand.N(100 * time.Millisecond))
			must(t, contend[i].Cmd.Process.Kill())
			contend[i] = next
		}
		for _, c := range contend {
			c.Stdin.Close()
		}
		for _, c := range contend {
			for line := range c.Lines {
				t.Error(line)
			}
		}
		o.wantSoonFree(target)

		// One more grant closes the row of the process that was killed last.
		s, _ := newSession(t, driver, pglock.WithAudit())
		must(t, acquired(t, s, target).Release(bg))
		const overlaps = `SELECT count(*) FROM lock_audit a JOIN lock_audit b
			ON a.key = b.key AND a.id < b.id AND a.acquired_at < b.released_at AND b.acquired_at < a.released_at
			WHERE a.key = $1::bigint`
		if n := one[int](t, o.db, overlaps, key); n > 0 {
			t.Errorf("%d pairs of intervals overlap", n)
		}
		const disorder = `SELECT count(*) FROM (
			SELECT fence, lag(fence) OVER (ORDER BY acquired_at, id) AS before FROM lock_audit WHERE key = $1::bigint) f
			WHERE fence IS NULL OR fence <= before`
		if n := one[int](t, o.db, disorder, key); n > 0 {
			t.Errorf("%d fences do not rise", n)
		}
		t.Logf("%d processes killed; rows: %d released, %d killed", kills, reasons("released"), reasons("killed"))
		if n := reasons(""); n > 0 {
			t.Errorf("%d rows are open, though nobody holds the lock", n)
		}
		if reasons("released") == 0 || reasons("killed") == 0 || reasons("killed") > kills {
			t.Errorf("got %d rows released and %d killed by %d kills", reasons("released"), reasons("killed"), kills)
		}
	})
}
