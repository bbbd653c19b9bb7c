package main

import (
	"context"
	"fmt"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// manyRow shows what an acquire and a release cost beside ever more locks that
// their Pool holds. It is for the chart.
func manyRow(h *harness) {
	var contenders []contender
	for _, tenths := range []int{0, 1, 2, 5, 10} {
		n := h.many * tenths / 10
		db := h.open("pgx", "")
		defer db.Close()
		p := must(pglock.NewPool(db))
		defer p.Close(context.Background())
		names := targets(fmt.Sprintf("many/%d", n), n+1)
		held := make([]swanlock.DistributedLock, n)
		check(each(n, func(i int) (err error) {
			held[i], err = p.TryAcquire(h.ctx, names[i])
			return err
		}))
		defer func() { check(each(n, func(i int) error { return held[i].Release(context.Background()) })) }()
		contenders = append(contenders, contender{fmt.Sprintf("swanlock/locks=%d", n), micros(tries(h.ctx, shared(p, 1), names[n:])[0])})
	}
	h.race("Many", "µs/pair", h.round, contenders)
}
