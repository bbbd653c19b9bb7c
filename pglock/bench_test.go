package pglock_test

import (
	"context"
	"database/sql"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/pglock"
)

// BenchmarkSession compares an acquire and a release on a warm Session with the
// same two calls made by hand, on the same connections in turns: a round is a
// tenth of a second of each. The figures are pairs a second, and the Session's
// as ratios to the two floors of its own round: the driver's prepared
// statements, and queries with arguments.
func BenchmarkSession(b *testing.B) {
	for _, driver := range drivers {
		for _, conns := range []int{1, 32} {
			b.Run(fmt.Sprintf("driver=%s/conns=%d", driver, conns), func(b *testing.B) {
				benchmarkSession(b, driver, conns)
			})
		}
	}
}

func benchmarkSession(b *testing.B, driver string, n int) {
	// Like any request's, this context can be cancelled, which drivers watch for.
	ctx, cancel := context.WithCancel(bg)
	defer cancel()
	db := openDB(b, driver)
	var prepared, arguments, session []func() error
	for i := range n {
		conn := connOf(b, db)
		lock := prepare(b, conn, "SELECT pg_try_advisory_lock($1)")
		unlock := prepare(b, conn, "SELECT pg_advisory_unlock($1)")
		prepared = append(prepared, func() error {
			return both(lock.QueryRowContext(ctx, i), func() *sql.Row { return unlock.QueryRowContext(ctx, i) })
		})
		arguments = append(arguments, func() error {
			return both(conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", i),
				func() *sql.Row { return conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", i) })
		})
		s := pglock.NewSession(conn)
		b.Cleanup(func() { s.Close(bg) })
		target := fmt.Sprintf("bench/%d", i)
		session = append(session, func() error {
			l, err := s.TryAcquire(ctx, target)
			if err != nil {
				return err
			}
			return l.Release(ctx)
		})
	}
	var rates [3]float64
	rounds := 0
	for b.Loop() {
		for i, work := range [][]func() error{session, prepared, arguments} {
			rates[i] += rate(b, work)
		}
		rounds++
	}
	b.ReportMetric(rates[0]/float64(rounds), "pairs/s")
	b.ReportMetric(rates[0]/rates[1], "x-prepared")
	b.ReportMetric(rates[0]/rates[2], "x-arguments")
}

// rate runs each function over and over, all at once, and returns how many
// calls were made a second.
func rate(b *testing.B, work []func() error) float64 {
	var (
		wg    sync.WaitGroup
		mu    sync.Mutex
		total int
	)
	start := time.Now()
	for _, f := range work {
		wg.Go(func() {
			n := 0
			for ; time.Since(start) < 100*time.Millisecond; n++ {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
			}
			mu.Lock()
			total += n
			mu.Unlock()
		})
	}
	wg.Wait()
	return float64(total) / time.Since(start).Seconds()
}

func both(first *sql.Row, second func() *sql.Row) error {
	var ok bool
	if err := first.Scan(&ok); err != nil {
		return err
	}
	return second().Scan(&ok)
}

func prepare(b *testing.B, conn *sql.Conn, query string) *sql.Stmt {
	stmt, err := conn.PrepareContext(bg, query)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stmt.Close() })
	return stmt
}
