package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// heldRow shows what an acquire and a release cost beside many locks that are
// held: the one that is taken makes them 10,000.
func heldRow(h *harness) {
	many := h.many
	full, none := h.open("pgx", "swanlock-held"), h.open("pgx", "")
	defer full.Close()
	defer none.Close()
	p, empty := must(pglock.NewPool(full)), must(pglock.NewPool(none))
	names := targets("held", many)
	held := make([]swanlock.DistributedLock, many-1)
	start := time.Now()
	check(each(len(held), func(i int) (err error) {
		held[i], err = p.TryAcquire(h.ctx, names[i])
		return err
	}))
	h.figure(fmt.Sprintf("to take %d locks", many), "Held", "swanlock", "s", time.Since(start).Seconds(), orientation)
	var conns int
	check(none.QueryRowContext(h.ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'swanlock-held'").Scan(&conns))
	h.figure(fmt.Sprintf("%d locks held", many), "Held", "swanlock", "conns", float64(conns), atMost(25))

	one := h.open("pgx", "")
	defer one.Close()
	conn := connect(one, 1)
	defer disconnect(conn)
	must(conn[0].ExecContext(h.ctx, "SELECT pg_advisory_lock(1000 + i) FROM generate_series(1, $1::integer) i", many-1))

	last := names[many-1:]
	got := h.race(fmt.Sprintf("Held/locks=%d", many), "µs/pair", h.round, []contender{
		{"swanlock-held", micros(tries(h.ctx, shared(p, 1), last)[0])},
		{"swanlock-none-held", micros(tries(h.ctx, shared(empty, 1), targets("free", 1))[0])},
		{"one-session-held", micros(prepared(h.ctx, conn)[0])},
	})
	what := fmt.Sprintf("acquire + release, %d held", many)
	h.against(what, got, "swanlock-held", "swanlock-none-held", atMost(1.5))
	h.against(what, got, "swanlock-held", "one-session-held", orientation)

	check(each(len(held), func(i int) error { return held[i].Release(h.ctx) }))
	check(p.Close(context.Background()))
	check(empty.Close(context.Background()))
}

// micros is rate for one, as the microseconds that a pair takes.
func micros(acquire acquirer) func(time.Duration) float64 {
	turn := rate([]acquirer{acquire})
	return func(d time.Duration) float64 { return 1e6 / turn(d) }
}

// each calls f for each i below n, in a few goroutines, and returns an error of
// one of them.
func each(n int, f func(i int) error) error {
	const workers = 64
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n && errs[w] == nil; i += workers {
				errs[w] = f(i)
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
