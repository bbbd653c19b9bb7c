package pglock_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// These show where time and memory go. An op is an acquire and a release. How
// fast that is beside others is measured in bench/, in turns.

// BenchmarkPrepared is the floor: the driver's own prepared statements.
func BenchmarkPrepared(b *testing.B) {
	eachBenchDriver(b, func(b *testing.B, driver string, ctx context.Context) {
		conn := connOf(b, openDB(b, driver))
		lock := prepare(b, conn, "SELECT pg_try_advisory_lock($1)")
		unlock := prepare(b, conn, "SELECT pg_advisory_unlock($1)")
		measure(b, 1, func(i int) error {
			var ok bool
			if err := lock.QueryRowContext(ctx, i).Scan(&ok); err != nil {
				return err
			}
			return unlock.QueryRowContext(ctx, i).Scan(&ok)
		})
	})
}

func BenchmarkSession(b *testing.B) {
	eachBenchDriver(b, func(b *testing.B, driver string, ctx context.Context) {
		s := pglock.NewSession(connOf(b, openDB(b, driver)))
		defer s.Close(bg)
		measure(b, 1, pairs(ctx, s, 1, s.TryAcquire))
	})
}

func BenchmarkPool(b *testing.B) {
	for _, n := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("goroutines=%d", n), func(b *testing.B) {
			eachBenchDriver(b, func(b *testing.B, driver string, ctx context.Context) {
				p := benchPool(b, openDB(b, driver))
				measure(b, n, pairs(ctx, p, n, p.TryAcquire))
			})
		})
	}
}

// BenchmarkLine has 8 contenders for one key: an op is a hand-over.
func BenchmarkLine(b *testing.B) {
	const n = 8
	eachBenchDriver(b, func(b *testing.B, driver string, ctx context.Context) {
		db := openDB(b, driver)
		p := benchPool(b, db)
		var pools, sessions []swanlock.Locker
		for range n {
			pools = append(pools, benchPool(b, db))
			sessions = append(sessions, pglock.NewSession(connOf(b, db)))
		}
		for _, c := range []struct {
			name    string
			lockers []swanlock.Locker
		}{{"pool", []swanlock.Locker{p, p, p, p, p, p, p, p}}, {"pools", pools}, {"sessions", sessions}} {
			b.Run(c.name, func(b *testing.B) {
				measure(b, n, func(i int) error { return pair(ctx, c.lockers[i].Acquire, c.name) })
			})
		}
	})
}

func eachBenchDriver(b *testing.B, f func(b *testing.B, driver string, ctx context.Context)) {
	for _, driver := range []string{"postgres", "pgx"} {
		b.Run("driver="+driver, func(b *testing.B) {
			// Like any request's, this context can be cancelled, which drivers watch for.
			ctx, cancel := context.WithCancel(bg)
			defer cancel()
			f(b, driver, ctx)
		})
	}
}

func benchPool(b *testing.B, db *sql.DB) *pglock.Pool {
	p, err := pglock.NewPool(db)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close(bg) })
	return p
}

type acquire = func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error)

// pairs takes and releases a target of each goroutine's own.
func pairs(ctx context.Context, l swanlock.Locker, n int, acquire acquire) func(i int) error {
	targets := make([]string, n)
	for i := range targets {
		targets[i] = fmt.Sprintf("bench/%d", i)
	}
	return func(i int) error { return pair(ctx, acquire, targets[i]) }
}

func pair(ctx context.Context, acquire acquire, target string) error {
	l, err := acquire(ctx, target)
	if err != nil {
		return err
	}
	return l.Release(ctx)
}

// measure spreads b.N calls of f over n goroutines, each of which says who it is.
func measure(b *testing.B, n int, f func(i int) error) {
	for i := range n { // warm up
		if err := f(i); err != nil {
			b.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	var done atomic.Int64
	b.ReportAllocs()
	b.ResetTimer()
	for i := range n {
		wg.Go(func() {
			for done.Add(1) <= int64(b.N) {
				if err := f(i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func prepare(b *testing.B, conn *sql.Conn, query string) *sql.Stmt {
	stmt, err := conn.PrepareContext(bg, query)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stmt.Close() })
	return stmt
}
