package leaselock_test

import (
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// TestMillion prints the figures of docs/backends.md, with SWANLOCK_MILLION=1: a
// million pairs on a hundred targets, without a VACUUM. It checks only that the
// table does not grow with the pairs.
func TestMillion(t *testing.T) {
	if os.Getenv("SWANLOCK_MILLION") == "" {
		t.Skip("it measures, for minutes: SWANLOCK_MILLION=1")
	}
	const workers, pairs, targets = 8, 1_000_000, 100
	srv := ownServer(t, pgserver.WithSetting("autovacuum", "off"))
	on := open(t, "pgx", srv.URL(), nil)
	on.SetMaxIdleConns(workers)
	size := func(when string) (table int64) {
		table = one[int64](t, on, "SELECT pg_relation_size('lock_leases')")
		t.Logf("%s: table %d kB, index %d kB", when, table/1024, one[int64](t, on, "SELECT pg_relation_size('lock_leases_pkey')")/1024)
		return table
	}
	l := newLocker(t, on)
	began := time.Now()
	for done, grown := 0, int64(0); done < pairs; done += pairs / 10 {
		var wg sync.WaitGroup
		for w := range workers {
			wg.Go(func() {
				for i := range pairs / 10 / workers {
					held, err := l.Acquire(bg, fmt.Sprint("target ", (i*workers+w)%targets))
					if err == nil {
						err = held.Release(bg)
					}
					if err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		now := size(fmt.Sprintf("after %d pairs, %v", done+pairs/10, time.Since(began).Round(time.Second)))
		if grown > 0 && now > 2*grown {
			t.Errorf("the table has grown from %d to %d bytes", grown, now)
		}
		grown = max(grown, now)
	}
	time.Sleep(2 * time.Second) // The statistics are late.
	t.Logf("%.0f pairs/s by %d workers on one *sql.DB", pairs/time.Since(began).Seconds(), workers)
	t.Logf("updates: %d, in place (HOT): %.2f %%", one[int64](t, on, "SELECT n_tup_upd FROM pg_stat_user_tables WHERE relname = 'lock_leases'"),
		one[float64](t, on, "SELECT 100.0 * n_tup_hot_upd / n_tup_upd FROM pg_stat_user_tables WHERE relname = 'lock_leases'"))
	t.Logf("pg_current_wal_lsn: %d MB", one[int64](t, on, "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint / 1048576"))
}
