package pglock_test

import (
	"fmt"
	"testing"

	"github.com/swanlake-io/swanlock/pglock"
)

func BenchmarkPool(b *testing.B) {
	for _, driver := range []string{"postgres", "pgx"} {
		for _, n := range []int{1, 32, 256} {
			b.Run(fmt.Sprintf("driver=%s/goroutines=%d", driver, n), func(b *testing.B) {
				p, err := pglock.NewPool(openDB(b, driver))
				if err != nil {
					b.Fatal(err)
				}
				defer p.Close(bg)
				var work []func() error
				for i := range n {
					target := fmt.Sprintf("bench/%d", i)
					work = append(work, func() error {
						l, err := p.TryAcquire(bg, target)
						if err != nil {
							return err
						}
						return l.Release(bg)
					})
				}
				total, rounds := 0.0, 0
				for b.Loop() {
					total += rate(b, work)
					rounds++
				}
				b.ReportMetric(total/float64(rounds), "pairs/s")
			})
		}
	}
}
