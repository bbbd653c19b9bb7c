package metrics

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	sdk "go.opentelemetry.io/otel/sdk/metric"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	otellock "github.com/swanlake-io/swanlock/metrics/otel"
	promlock "github.com/swanlake-io/swanlock/metrics/prometheus"
)

// two are both systems, each with a registry that Prometheus would scrape.
type two struct {
	otel, prom *prometheus.Registry
	meters     *sdk.MeterProvider
}

func newTwo(t *testing.T) two {
	t.Helper()
	s := two{otel: prometheus.NewRegistry(), prom: prometheus.NewRegistry()}
	exporter, err := otelprom.New(otelprom.WithRegisterer(s.otel))
	if err != nil {
		t.Fatal(err)
	}
	s.meters = sdk.NewMeterProvider(sdk.WithReader(exporter))
	return s
}

func (s two) observers(t *testing.T, backend string, group func(string) string) []swanlock.Observer {
	t.Helper()
	o, err := otellock.Metrics(otellock.WithMeterProvider(s.meters), otellock.WithBackend(backend), otellock.WithTargetGroup(group))
	if err != nil {
		t.Fatal(err)
	}
	p, err := promlock.Metrics(s.prom, promlock.WithBackend(backend), promlock.WithTargetGroup(group))
	if err != nil {
		t.Fatal(err)
	}
	return []swanlock.Observer{o, p}
}

// series returns what a registry exposes, one series a line, without what
// OpenTelemetry's exporter adds to every one.
func series(t *testing.T, registry *prometheus.Registry) (lines []string) {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "target_info" {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if l.GetValue() != "" && !strings.HasPrefix(l.GetName(), "otel_scope_") {
					labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
				}
			}
			slices.Sort(labels)
			lines = append(lines, fmt.Sprintf("%s %s (%s) {%s} %s", f.GetType(), f.GetName(), f.GetHelp(), strings.Join(labels, ","), value(m)))
		}
	}
	slices.Sort(lines)
	return lines
}

func value(m *dto.Metric) string {
	switch {
	case m.Histogram != nil:
		buckets := ""
		for _, b := range m.Histogram.GetBucket() {
			buckets += fmt.Sprintf(" %g:%d", b.GetUpperBound(), b.GetCumulativeCount())
		}
		return fmt.Sprintf("%d of %.6f:%s", m.Histogram.GetSampleCount(), m.Histogram.GetSampleSum(), buckets)
	case m.Counter != nil:
		return fmt.Sprint(m.Counter.GetValue())
	}
	return fmt.Sprint(m.Gauge.GetValue())
}

// work does all that there is to count.
func work(t *testing.T, l swanlock.Locker, space *memlock.Locker) {
	t.Helper()
	ctx := t.Context()
	acquire := func(target string, opts ...swanlock.Option) swanlock.DistributedLock {
		held, err := l.Acquire(ctx, target, opts...)
		if err != nil {
			t.Fatal(err)
		}
		return held
	}
	held := acquire("a", swanlock.WithOwner("me"), swanlock.WithTTL(time.Hour))
	_, _ = l.TryAcquire(ctx, "a")
	_, _ = l.TryAcquire(ctx, "")
	soon, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	_, _ = l.Acquire(soon, "a")
	_ = held.Refresh(ctx)
	_ = held.Refresh(soon)
	time.Sleep(time.Minute)
	_, _ = held.Release(ctx), held.Release(ctx)
	acquire("b", swanlock.WithShared())
	expires := acquire("c", swanlock.WithTTL(time.Second))
	time.Sleep(2 * time.Second)
	_ = expires.Release(ctx)
	for _, cause := range []error{errors.New("taken away"), sql.ErrConnDone} {
		acquire("d")
		space.Lose("d", cause)
		synctest.Wait()
	}
}

func diff(t *testing.T, otel, prom []string) {
	t.Helper()
	for _, line := range otel {
		if !slices.Contains(prom, line) {
			t.Errorf("OpenTelemetry alone: %s", line)
		}
	}
	for _, line := range prom {
		if !slices.Contains(otel, line) {
			t.Errorf("Prometheus alone: %s", line)
		}
	}
}

// TestSame: both expose the same names, types, descriptions, labels, buckets and
// values.
func TestSame(t *testing.T) {
	for name, group := range map[string]func(string) string{"without groups": nil, "with groups": func(target string) string { return "group " + target }} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, space := newTwo(t), memlock.New()
				for _, backend := range []string{"memory", "other"} {
					work(t, swanlock.Observe(space, s.observers(t, backend, group)...), space)
					space.Lose("b", nil)
					synctest.Wait()
				}
				otel, prom := series(t, s.otel), series(t, s.prom)
				diff(t, otel, prom)
				all := strings.Join(prom, "\n")
				for _, want := range []string{
					`COUNTER swanlock_lock_losses_total`, `swanlock_reason="session"`, `swanlock_reason="expired"`, `swanlock_reason="other"`,
					`error_type="_OTHER"`, `swanlock_outcome="cancelled"`, `swanlock_outcome="not_acquired"`, `swanlock_mode="shared"`,
				} {
					if !strings.Contains(all, want) {
						t.Errorf("%s is not exposed:\n%s", want, all)
					}
				}
				if strings.Contains(all, `="me"`) || strings.Contains(all, `="a"`) || strings.Contains(all, "target_group") != (group != nil) {
					t.Errorf("targets and owners are no labels:\n%s", all)
				}
			})
		})
	}
}

// TestFromTheStart: the series of losses and of what is active are there at 0
// before anything has happened, since the first loss would not be seen otherwise.
// So are those of a group, from its first lock on.
func TestFromTheStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTwo(t)
		s.observers(t, "memory", nil)
		otel, prom := series(t, s.otel), series(t, s.prom)
		diff(t, otel, prom)
		want := map[string]int{"swanlock_lock_losses_total": 3, "swanlock_lock_active": 2, "swanlock_acquire_active": 1}
		if got := count(prom); !maps.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		s = newTwo(t)
		l := swanlock.Observe(memlock.New(), s.observers(t, "memory", func(string) string { return "jobs" })...)
		if held, err := l.TryAcquire(t.Context(), "t"); err != nil {
			t.Error(err)
		} else if got := count(series(t, s.otel))["swanlock_lock_losses_total"]; got != 3 {
			t.Errorf("got %d series of losses, want 3", got)
		} else {
			held.Release(t.Context())
		}
		diff(t, series(t, s.otel), series(t, s.prom))
	})
}

// count returns how many series each metric has.
func count(lines []string) map[string]int {
	n := map[string]int{}
	for _, line := range lines {
		n[strings.Fields(line)[1]]++
	}
	return n
}

// TestBalanced: what is active comes back to 0, whatever happens.
func TestBalanced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, space := newTwo(t), memlock.New()
		observers := s.observers(t, "memory", nil)
		work(t, swanlock.Observe(space, observers...), space)
		space.Lose("b", nil)
		func() {
			defer func() { recover() }()
			swanlock.Observe(panics{space}, observers...).Acquire(t.Context(), "p")
		}()
		held, err := swanlock.Observe(space, observers...).Acquire(t.Context(), "elsewhere")
		if err != nil {
			t.Fatal(err)
		}
		held.(interface {
			Unwrap() swanlock.DistributedLock
		}).Unwrap().Release(t.Context())
		synctest.Wait()
		for _, registry := range []*prometheus.Registry{s.otel, s.prom} {
			for _, line := range series(t, registry) {
				if strings.Contains(line, "_active ") && !strings.HasSuffix(line, "} 0") {
					t.Errorf("not balanced: %s", line)
				}
			}
		}
	})
}

type panics struct{ swanlock.Locker }

func (panics) Acquire(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	panic("the locker panics")
}

// TestGroupsAreBounded: a function that returns a group for each target makes 50
// groups, and one for all others.
func TestGroupsAreBounded(t *testing.T) {
	s := newTwo(t)
	l := swanlock.Observe(memlock.New(), s.observers(t, "memory", func(target string) string { return target })...)
	for i := range 500 {
		held, err := l.TryAcquire(t.Context(), fmt.Sprint(i))
		if err == nil {
			err = held.Release(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	otel, prom := series(t, s.otel), series(t, s.prom)
	diff(t, otel, prom)
	if got := count(prom)["swanlock_acquire_active"]; got != 51 {
		t.Errorf("got %d groups, want 51", got)
	}
	if !slices.ContainsFunc(prom, func(line string) bool { return strings.Contains(line, `swanlock_target_group="_other"`) }) {
		t.Error("there is no group for the others")
	}
}
