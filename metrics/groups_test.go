package metrics

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	otellock "github.com/swanlake-io/swanlock/metrics/otel"
	promlock "github.com/swanlake-io/swanlock/metrics/prometheus"
)

// TestGroupsAtOnce: there are no more groups if they come at the same time.
func TestGroupsAtOnce(t *testing.T) {
	for range 20 {
		const together = 200
		var met sync.WaitGroup
		met.Add(together)
		var first sync.Map
		group := func(target string) string {
			if _, again := first.LoadOrStore(target, true); !again {
				met.Done()
				met.Wait()
			}
			return target
		}
		s := newTwo(t)
		prom := s.observers(t, "m", group)[1]
		var all sync.WaitGroup
		for i := range together {
			all.Go(func() { prom.Begin(t.Context(), swanlock.OpAcquire, fmt.Sprint(i)) })
		}
		all.Wait()
		if got := count(series(t, s.prom))["swanlock_acquire_active"]; got != 51 {
			t.Fatalf("got %d groups, want 50 and one for all others", got)
		}
	}
}

// An acquires is a Locker that calls before in each Acquire.
type acquires struct {
	swanlock.Locker
	before func()
}

func (l acquires) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	l.before()
	return l.Locker.Acquire(ctx, target, opts...)
}

// TestGroupPanics: a function of WithTargetGroup that panics at the end of a call
// leaves no call counted as one that waits, and no lock as one that is held.
func TestGroupPanics(t *testing.T) {
	var broken atomic.Bool
	s := newTwo(t)
	observers := s.observers(t, "m", func(target string) string {
		if broken.Load() {
			panic("a bug")
		}
		return "g"
	})
	locker := swanlock.Observe(acquires{memlock.New(), func() { broken.Store(true) }}, observers...)
	held, err := locker.Acquire(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	active := func(name string, want float64) {
		t.Helper()
		for what, registry := range map[string]*prometheus.Registry{"otel": s.otel, "prom": s.prom} {
			sum := 0.0
			families, err := registry.Gather()
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range families {
				for _, m := range f.GetMetric() {
					if f.GetName() == name {
						sum += m.GetGauge().GetValue()
						if v := m.GetGauge().GetValue(); v < 0 {
							t.Errorf("%s: %s %v is %v", what, name, m.GetLabel(), v)
						}
					}
				}
			}
			if sum != want {
				t.Errorf("%s: %s is %v in all, want %v", what, name, sum, want)
			}
		}
	}
	active("swanlock_acquire_active", 0)
	active("swanlock_lock_active", 1)
	broken.Store(false)
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	active("swanlock_lock_active", 0)
}

// TestGroupOfBadText: an acquire that is refused because of its target is counted too.
func TestGroupOfBadText(t *testing.T) {
	s := newTwo(t)
	locker := swanlock.Observe(memlock.New(), s.observers(t, "m", func(target string) string { return target })...)
	if _, err := locker.Acquire(t.Context(), "\xff"); err == nil {
		t.Fatal("Acquire: got nil, want an error")
	}
	for what, registry := range map[string]*prometheus.Registry{"otel": s.otel, "prom": s.prom} {
		if !slices.ContainsFunc(series(t, registry), func(line string) bool {
			return strings.Contains(line, "swanlock_acquire_duration_seconds") && strings.Contains(line, `swanlock_outcome="error"`)
		}) {
			t.Errorf("%s: the acquire was not counted", what)
		}
	}
}

// TestNamesOfBadText: a name that no label can have is refused where it is given, and
// not when it is first used.
func TestNamesOfBadText(t *testing.T) {
	s, p := newTwo(t), newPool(t, "pgx")
	for what, make := range map[string]func() error{
		"otel's backend": func() error {
			_, err := otellock.Metrics(otellock.WithMeterProvider(s.meters), otellock.WithBackend("\xff"))
			return err
		},
		"prom's backend": func() error { _, err := promlock.Metrics(s.prom, promlock.WithBackend("\xff")); return err },
		"otel's pool": func() error {
			_, err := otellock.CollectPool("\xff", p, otellock.WithMeterProvider(s.meters))
			return err
		},
		"prom's pool": func() error { _, err := promlock.CollectPool(s.prom, "\xff", p); return err },
	} {
		if err := make(); err == nil {
			t.Errorf("%s: got nil, want an error", what)
		}
	}
	if got := append(series(t, s.otel), series(t, s.prom)...); len(got) != 0 {
		t.Errorf("got %q, want nothing", got)
	}
}
