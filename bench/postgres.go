package main

import (
	"context"
	"database/sql"
	"errors"
	"net/url"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/pressly/goose/v3/lock"
	"github.com/swanlake-io/swanlock"
)

// drivers are lib/pq and pgx.
var drivers = []string{"pq", "pgx"}

// open opens the server's database. Its connections carry name, if there is one.
func (h *harness) open(driver, name string) *sql.DB {
	if driver == "pq" {
		driver = "postgres"
	}
	return must(sql.Open(driver, h.url("application_name="+name)))
}

// url is the server's, or the network's before it.
func (h *harness) url(params ...string) string {
	u := must(url.Parse(h.postgres.URL(params...)))
	u.Host = h.postgresAddr
	return u.String()
}

// connect takes n connections of db, to be held.
func connect(db *sql.DB, n int) []*sql.Conn {
	conns := make([]*sql.Conn, n)
	for i := range conns {
		conns[i] = must(db.Conn(context.Background()))
	}
	return conns
}

// disconnect gives them back.
func disconnect(conns []*sql.Conn) {
	for _, conn := range conns {
		conn.Close()
	}
}

const (
	tryLock = "SELECT pg_try_advisory_lock($1)"
	unlock  = "SELECT pg_advisory_unlock($1)"
)

// prepared is what a program that knows its driver can do at best: statements
// prepared on each connection, and nothing else. The i-th takes the key i.
func prepared(ctx context.Context, conns []*sql.Conn) []acquirer {
	acquirers := make([]acquirer, len(conns))
	for i, conn := range conns {
		try := must(conn.PrepareContext(ctx, tryLock))
		release := releaser(ctx, conn, i)
		acquirers[i] = func() (func() error, error) {
			return release, isTrue(try.QueryRowContext(ctx, i))
		}
	}
	return acquirers
}

// blocking waits in the server, all for one key.
func blocking(ctx context.Context, conns []*sql.Conn) []acquirer {
	const key = -1
	acquirers := make([]acquirer, len(conns))
	for i, conn := range conns {
		wait := must(conn.PrepareContext(ctx, "SELECT pg_advisory_lock($1)"))
		release := releaser(ctx, conn, key)
		acquirers[i] = func() (func() error, error) {
			_, err := wait.ExecContext(ctx, key)
			return release, err
		}
	}
	return acquirers
}

func releaser(ctx context.Context, conn *sql.Conn, key int) func() error {
	stmt := must(conn.PrepareContext(ctx, unlock))
	return func() error { return isTrue(stmt.QueryRowContext(ctx, key)) }
}

// arguments queries with an argument each time, as most libraries do:
// allisson/go-pglock sends the same. For lib/pq these are two round trips a
// call; pgx prepares what it sees.
func arguments(ctx context.Context, conns []*sql.Conn) []acquirer {
	acquirers := make([]acquirer, len(conns))
	for i, conn := range conns {
		release := func() error { return isTrue(conn.QueryRowContext(ctx, unlock, i)) }
		acquirers[i] = func() (func() error, error) {
			return release, isTrue(conn.QueryRowContext(ctx, tryLock, i))
		}
	}
	return acquirers
}

// gooses are goose's session locker, one for each connection.
func gooses(ctx context.Context, conns []*sql.Conn) []acquirer {
	acquirers := make([]acquirer, len(conns))
	for i, conn := range conns {
		locker := must(lock.NewPostgresSessionLocker(lock.WithLockID(int64(i))))
		release := func() error { return locker.SessionUnlock(ctx, conn) }
		acquirers[i] = func() (func() error, error) { return release, locker.SessionLock(ctx, conn) }
	}
	return acquirers
}

func isTrue(row *sql.Row) error {
	var ok bool
	if err := row.Scan(&ok); err != nil {
		return err
	}
	if !ok {
		return errors.New("the server says no")
	}
	return nil
}

// tries take the i-th target from the i-th locker if it is free; waits wait for it.
func tries(ctx context.Context, lockers []swanlock.Locker, targets []string, opts ...swanlock.Option) []acquirer {
	return swanlocks(ctx, lockers, targets, swanlock.Locker.TryAcquire, opts...)
}

func waits(ctx context.Context, lockers []swanlock.Locker, targets []string) []acquirer {
	return swanlocks(ctx, lockers, targets, swanlock.Locker.Acquire)
}

func swanlocks(ctx context.Context, lockers []swanlock.Locker, targets []string,
	how func(swanlock.Locker, context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error), opts ...swanlock.Option) []acquirer {
	acquirers := make([]acquirer, len(lockers))
	for i, locker := range lockers {
		acquirers[i] = func() (func() error, error) {
			l, err := how(locker, ctx, targets[i], opts...)
			if err != nil {
				return nil, err
			}
			return func() error { return l.Release(ctx) }, nil
		}
	}
	return acquirers
}
