package metrics

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	otellock "github.com/swanlake-io/swanlock/metrics/otel"
	promlock "github.com/swanlake-io/swanlock/metrics/prometheus"
	"github.com/swanlake-io/swanlock/pglock"
)

func TestMain(m *testing.M) { pgserver.Main(m) }

func newPool(t *testing.T, driver string) *pglock.Pool {
	t.Helper()
	db, err := sql.Open(driver, pgserver.Default().URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	p, err := pglock.NewPool(db, pglock.WithHeartbeat(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return p
}

// TestSamePool: both expose the same of a Pool, and of the audit.
func TestSamePool(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			s, p := newTwo(t), newPool(t, driver)
			oldest := func(context.Context) (time.Time, error) { return time.Time{}, sql.ErrNoRows }
			stopPool, err := otellock.CollectPool("main", p, otellock.WithMeterProvider(s.meters))
			if err != nil {
				t.Fatal(err)
			}
			stopAudit, err := otellock.CollectAuditAge(func(ctx context.Context) (time.Time, error) { return oldest(ctx) }, otellock.WithMeterProvider(s.meters))
			if err != nil {
				t.Fatal(err)
			}
			pool, err := promlock.CollectPool(s.prom, "main", p)
			if err != nil {
				t.Fatal(err)
			}
			audit, err := promlock.CollectAuditAge(s.prom, func(ctx context.Context) (time.Time, error) { return oldest(ctx) })
			if err != nil {
				t.Fatal(err)
			}
			if got, err := promlock.CollectPool(s.prom, "main", p); err == nil {
				t.Errorf("the same name twice: got %v, want an error", got)
			}
			held, err := p.TryAcquire(t.Context(), t.Name())
			if err != nil {
				t.Fatal(err)
			}
			otel, prom := series(t, s.otel), series(t, s.prom)
			names := func(lines []string) (names []string) {
				for _, line := range lines {
					if strings.Contains(line, "_lock_age_") { // It differs by some microseconds.
						line = line[:strings.Index(line, "}")]
					}
					names = append(names, line)
				}
				return names
			}
			diff(t, names(otel), names(prom))
			for _, want := range []string{
				`GAUGE swanlock_pool_lock_count (Locks that are held.) {swanlock_pool="main"} 1`,
				`GAUGE swanlock_pool_session_count (Connections that the pool has.) {swanlock_pool="main"} 1`,
				`GAUGE swanlock_audit_row_age_seconds (Age of the oldest row of the audit.) {} 0`,
			} {
				if !slices.Contains(prom, want) {
					t.Errorf("%s is not exposed:\n%s", want, strings.Join(prom, "\n"))
				}
			}
			if err := held.Release(t.Context()); err != nil {
				t.Error(err)
			}

			// While the audit cannot be asked, its metric is missing; the others are there.
			oldest = func(context.Context) (time.Time, error) { return time.Time{}, errors.New("no table") }
			for _, registry := range []*prometheus.Registry{s.otel, s.prom} {
				got := count(series(t, registry))
				if got["swanlock_audit_row_age_seconds"] != 0 || got["swanlock_pool_lock_count"] != 1 {
					t.Errorf("got %v, want nothing of the audit", got)
				}
			}
			oldest = func(context.Context) (time.Time, error) { return time.Now().Add(-time.Hour), nil }
			for _, registry := range []*prometheus.Registry{s.otel, s.prom} {
				if got := strings.Join(series(t, registry), "\n"); !strings.Contains(got, "GAUGE swanlock_audit_row_age_seconds (Age of the oldest row of the audit.) {} 36") {
					t.Errorf("got %s, want an age of 3600 s", got)
				}
			}
			// The server's clock, by which the row was written, may be ahead of this host's.
			oldest = func(context.Context) (time.Time, error) { return time.Now().Add(time.Minute), nil }
			for _, registry := range []*prometheus.Registry{s.otel, s.prom} {
				if got := strings.Join(series(t, registry), "\n"); !strings.Contains(got, "GAUGE swanlock_audit_row_age_seconds (Age of the oldest row of the audit.) {} 0\n") {
					t.Errorf("got %s, want an age of 0 s", got)
				}
			}
			if err := errors.Join(stopPool(), stopAudit()); err != nil || !s.prom.Unregister(pool) || !s.prom.Unregister(audit) {
				t.Errorf("stop: %v", err)
			}
			if got := append(series(t, s.otel), series(t, s.prom)...); len(got) != 0 {
				t.Errorf("after the end: got %q, want nothing", got)
			}
		})
	}
}
