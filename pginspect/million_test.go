package pginspect_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestMillion prints the figures of docs/auditing.md, with SWANLOCK_MILLION=1: a
// million rows, 500 locks, 50 waiters. It asserts none.
func TestMillion(t *testing.T) {
	if os.Getenv("SWANLOCK_MILLION") == "" {
		t.Skip("it measures, for minutes: SWANLOCK_MILLION=1")
	}
	server, err := pgserver.Start(bg, pgserver.WithSetting("fsync", "on"), pgserver.WithSetting("synchronous_commit", "on"),
		pgserver.WithSetting("shared_buffers", "128MB"), pgserver.WithSetting("autovacuum", "on"))
	must(t, err)
	defer server.Stop()
	on := openURL(t, "pgx", server.URL())
	migrateTo(t, on, 1)
	manyRows(t, on, 1_000_000)

	acquires(t, server, "alone, one index less", func() { time.Sleep(5 * time.Second) })
	acquires(t, server, "while migration 2 is applied", func() {
		began := time.Now()
		must(t, migrate(on))
		t.Logf("migration 2 on a million rows: %v", time.Since(began).Round(time.Millisecond))
	})
	acquires(t, server, "alone", func() { time.Sleep(5 * time.Second) })
	for _, relation := range []string{"lock_audit", "lock_audit_open", "lock_audit_key", "lock_audit_time", "lock_audit_span"} {
		t.Logf("%s: %s", relation, one[string](t, on, "SELECT pg_size_pretty(pg_relation_size($1::regclass))", relation))
	}

	holdMany(t, server, func() {
		time.Sleep(2 * time.Second)
		for name, f := range map[string]func() (int, error){
			"Look":        func() (int, error) { l, w, err := pginspect.Look(bg, on); return len(l)*1000 + len(w), err },
			"HeldAt, now": func() (int, error) { r, err := pginspect.HeldAt(bg, on, time.Now()); return len(r), err },
			"HeldAt, 45 days ago": func() (int, error) {
				r, err := pginspect.HeldAt(bg, on, time.Now().Add(-45*24*time.Hour))
				return len(r), err
			},
			"HeldAt, 89 days ago": func() (int, error) {
				r, err := pginspect.HeldAt(bg, on, time.Now().Add(-89*24*time.Hour))
				return len(r), err
			},
			"History, 100 newest": func() (int, error) {
				r, err := pginspect.History(bg, on, pginspect.Query{})
				return len(r.Records), err
			},
			"History, one target": func() (int, error) {
				r, err := pginspect.History(bg, on, pginspect.Query{Target: "/held/7"})
				return len(r.Records), err
			},
			"History, owner that nobody is": func() (int, error) {
				r, err := pginspect.History(bg, on, pginspect.Query{Owner: "nobody"})
				return len(r.Records), err
			},
		} {
			var took []time.Duration
			n := 0
			for range 20 {
				began := time.Now()
				n, err = f()
				must(t, err)
				took = append(took, time.Since(began))
			}
			slices.Sort(took)
			t.Logf("%-30s %6d answers: median %v, worst of 20 %v", name, n, took[10].Round(10*time.Microsecond), took[19].Round(10*time.Microsecond))
		}
		now := one[int64](t, on, "SELECT (extract(epoch FROM now()) * 1000000)::bigint")
		t.Logf("EXPLAIN of HeldAt:\n%s", planOf(t, on, "(ANALYZE, BUFFERS, COSTS OFF) ", db.HeldAt, 0, 10000, now-45*24*3600*1_000_000))
		t.Logf("EXPLAIN of InspectAudit:\n%s", planOf(t, on, "(ANALYZE, BUFFERS, COSTS OFF) ", db.InspectAudit))
		t.Logf("EXPLAIN of History:\n%s", planOf(t, on, "(ANALYZE, BUFFERS, COSTS OFF) ", db.History, 0, now, 0, "%", "%", 101))
	})

	acquires(t, server, "while half a million rows are pruned", func() {
		began := time.Now()
		done, err := pginspect.Prune(bg, on, pginspect.PruneQuery{Before: time.Now().Add(-45 * 24 * time.Hour)})
		must(t, err)
		t.Logf("prune: %+v in %v", done, time.Since(began).Round(time.Millisecond))
	})
}

// acquires takes and releases an audited lock on a session of its own, again and
// again, while f runs, and tells how long that took.
func acquires(t *testing.T, server *pgserver.Server, when string, f func()) {
	t.Helper()
	s := pglock.NewSession(conn(t, openURL(t, "pgx", server.URL())), audited...)
	defer s.Close(bg)
	ctx, cancel := context.WithCancel(bg)
	var took []time.Duration
	var group sync.WaitGroup
	group.Go(func() {
		for ctx.Err() == nil {
			began := time.Now()
			held, err := s.TryAcquire(bg, "/measured")
			if err != nil {
				t.Error(err)
				return
			}
			took = append(took, time.Since(began))
			if err := held.Release(bg); err != nil {
				t.Error(err)
				return
			}
			time.Sleep(time.Millisecond)
		}
	})
	f()
	cancel()
	group.Wait()
	slices.Sort(took)
	at := func(part float64) time.Duration {
		return took[int(part*float64(len(took)-1))].Round(10 * time.Microsecond)
	}
	t.Logf("an audited acquire %s: median %v, 99 %% %v, 99.9 %% %v, worst of %d %v", when, at(0.5), at(0.99), at(0.999), len(took), at(1))
}

// holdMany holds 500 locks, with 50 waiters for ten of them, while f runs.
func holdMany(t *testing.T, server *pgserver.Server, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(bg)
	holders, err := pglock.NewPool(openURL(t, "pgx", server.URL()), pglock.WithAudit())
	must(t, err)
	var kept []swanlock.DistributedLock
	for i := range 500 {
		held, err := holders.TryAcquire(bg, fmt.Sprintf("/held/%d", i))
		must(t, err)
		kept = append(kept, held)
	}
	var group sync.WaitGroup
	for n := range 5 {
		waiters, err := pglock.NewPool(openURL(t, "pgx", server.URL()))
		must(t, err)
		for i := range 10 {
			group.Go(func() {
				if held, err := waiters.Acquire(ctx, fmt.Sprintf("/held/%d", i)); err == nil {
					t.Errorf("waiter %d got %v", n, held.Info())
				}
			})
		}
		defer waiters.Close(bg)
	}
	f()
	cancel()
	group.Wait()
	for _, held := range kept {
		must(t, held.Release(bg))
	}
	must(t, holders.Close(bg))
}
