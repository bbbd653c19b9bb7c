package pglock_test

import (
	"context"
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// These benchmarks show where time and memory go. An op is an acquire and a
// release. Other libraries are compared in bench/.

// BenchmarkPrepared is the floor: the driver's own prepared statements.
func BenchmarkPrepared(b *testing.B) {
	eachBench(b, []int{1, 32}, func(b *testing.B, driver string, ctx context.Context, n int) {
		db := openDB(b, driver)
		var locks, unlocks []*sql.Stmt
		for range n {
			conn := connOf(b, db)
			locks = append(locks, prepare(b, conn, "SELECT pg_try_advisory_lock($1)"))
			unlocks = append(unlocks, prepare(b, conn, "SELECT pg_advisory_unlock($1)"))
		}
		measure(b, n, func(i int) error {
			var ok bool
			if err := locks[i].QueryRowContext(ctx, i).Scan(&ok); err != nil {
				return err
			}
			return unlocks[i].QueryRowContext(ctx, i).Scan(&ok)
		})
	})
}

// BenchmarkSession has a Session for each goroutine.
func BenchmarkSession(b *testing.B) {
	eachBench(b, []int{1, 32}, func(b *testing.B, driver string, ctx context.Context, n int) {
		db := openDB(b, driver)
		var sessions []swanlock.Locker
		for range n {
			s := pglock.NewSession(connOf(b, db))
			defer s.Close(bg)
			sessions = append(sessions, s)
		}
		measure(b, n, pairs(ctx, sessions))
	})
}

// BenchmarkPool has one Pool for all goroutines.
func BenchmarkPool(b *testing.B) {
	eachBench(b, []int{1, 32, 256}, func(b *testing.B, driver string, ctx context.Context, n int) {
		measure(b, n, pairs(ctx, slices.Repeat([]swanlock.Locker{benchPool(b, openDB(b, driver))}, n)))
	})
}

// BenchmarkLine has 8 contenders for one key.
func BenchmarkLine(b *testing.B) {
	eachBench(b, []int{8}, func(b *testing.B, driver string, ctx context.Context, n int) {
		db := openDB(b, driver)
		var pools, sessions []swanlock.Locker
		for range n {
			pools = append(pools, benchPool(b, db))
			sessions = append(sessions, pglock.NewSession(connOf(b, db)))
		}
		for _, c := range []struct {
			name    string
			lockers []swanlock.Locker
		}{{"one-pool", slices.Repeat([]swanlock.Locker{benchPool(b, db)}, n)}, {"pools", pools}, {"sessions", sessions}} {
			b.Run(c.name, func(b *testing.B) {
				measure(b, n, func(i int) error { return pair(ctx, c.lockers[i].Acquire, "bench/"+c.name) })
			})
		}
	})
}

func eachBench(b *testing.B, goroutines []int, f func(b *testing.B, driver string, ctx context.Context, n int)) {
	for _, driver := range []string{"postgres", "pgx"} {
		for _, n := range goroutines {
			b.Run(fmt.Sprintf("driver=%s/goroutines=%d", driver, n), func(b *testing.B) {
				// Like any request's, this context can be cancelled, which drivers watch for.
				ctx, cancel := context.WithCancel(bg)
				defer cancel()
				f(b, driver, ctx, n)
			})
		}
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
func pairs(ctx context.Context, lockers []swanlock.Locker) func(i int) error {
	targets := make([]string, len(lockers))
	for i := range targets {
		targets[i] = fmt.Sprintf("bench/%d", i)
	}
	return func(i int) error { return pair(ctx, lockers[i].TryAcquire, targets[i]) }
}

func pair(ctx context.Context, acquire acquire, target string) error {
	l, err := acquire(ctx, target)
	if err != nil {
		return err
	}
	return l.Release(ctx)
}

// measure spreads b.N calls of f over n goroutines, which are numbered.
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
