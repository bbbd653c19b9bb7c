package metrics

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
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
