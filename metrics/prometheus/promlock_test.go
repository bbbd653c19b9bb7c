package promlock_test

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	promlock "github.com/swanlake-io/swanlock/metrics/prometheus"
)

type traceKey struct{}

// TestExemplars: the handler exposes the exemplars of each histogram, of calls that
// have one.
func TestExemplars(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics, err := promlock.Metrics(reg, promlock.WithExemplar(func(ctx context.Context) prometheus.Labels {
		if id, ok := ctx.Value(traceKey{}).(string); ok {
			return prometheus.Labels{"trace_id": id}
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	l := swanlock.Observe(memlock.New(), metrics)
	for _, ctx := range []context.Context{t.Context(), context.WithValue(t.Context(), traceKey{}, "abc123")} {
		held, err := l.TryAcquire(ctx, "t")
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Refresh(ctx); err != nil {
			t.Error(err)
		}
		if err := held.Release(ctx); err != nil {
			t.Error(err)
		}
	}
	answer := httptest.NewRecorder()
	request := httptest.NewRequest("GET", "/metrics", nil)
	request.Header.Set("Accept", "application/openmetrics-text; version=1.0.0")
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true}).ServeHTTP(answer, request)
	for _, name := range []string{"acquire", "hold", "refresh", "release"} {
		found := false
		for line := range strings.Lines(answer.Body.String()) {
			found = found || strings.HasPrefix(line, "swanlock_"+name+"_duration_seconds_bucket") && strings.Contains(line, `# {trace_id="abc123"}`)
		}
		if !found {
			t.Errorf("%s: no exemplar in\n%s", name, answer.Body)
		}
	}
}

// TestPanickingFunctions: a user's function that panics costs its own label, and not
// the balance of what is active.
func TestPanickingFunctions(t *testing.T) {
	reg := prometheus.NewRegistry()
	metrics, err := promlock.Metrics(reg, promlock.WithExemplar(func(context.Context) prometheus.Labels {
		return prometheus.Labels{"much too long": strings.Repeat("x", 1000)}
	}))
	if err != nil {
		t.Fatal(err)
	}
	l := swanlock.Observe(memlock.New(), metrics)
	held, err := l.Acquire(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	if err := held.Release(t.Context()); err != nil {
		t.Error(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if strings.HasSuffix(f.GetName(), "_active") && m.GetGauge().GetValue() != 0 {
				t.Errorf("%s: got %v, want 0", f.GetName(), m)
			}
			if m.Histogram != nil && m.GetHistogram().GetSampleCount() != 1 {
				t.Errorf("%s: got %d observations, want 1", f.GetName(), m.GetHistogram().GetSampleCount())
			}
		}
	}
}

// TestDifferentLabels: one registry cannot have groups and none.
func TestDifferentLabels(t *testing.T) {
	reg := prometheus.NewRegistry()
	if _, err := promlock.Metrics(reg); err != nil {
		t.Fatal(err)
	}
	if _, err := promlock.Metrics(reg, promlock.WithTargetGroup(func(string) string { return "g" })); err == nil {
		t.Error("got nil, want an error")
	}
	if _, err := promlock.Metrics(reg, nil, promlock.WithBackend("memory")); err != nil {
		t.Errorf("another backend: %v", err)
	}
}

// TestFewAllocations: to count allocates nothing.
func TestFewAllocations(t *testing.T) {
	metrics, err := promlock.Metrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	ctx := context.Background()
	e := swanlock.Event{Op: swanlock.OpAcquire, Target: "t", Outcome: swanlock.OutcomeAcquired, Took: time.Millisecond}
	if got := testing.AllocsPerRun(100, func() { metrics.End(metrics.Begin(ctx, e.Op, e.Target), e) }); got > 0 {
		t.Errorf("got %v allocations, want none", got)
	}
}
