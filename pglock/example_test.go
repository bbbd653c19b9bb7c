package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// open gives an example its *sql.DB, where a program has its own.
func open() *sql.DB {
	server, err := pgtest.Migrated()
	if err != nil {
		panic(err)
	}
	db, err := sql.Open("pgx", server.URL())
	if err != nil {
		panic(err)
	}
	return db
}

// Do holds the lock while a function runs, and ends its context if the lock is
// lost.
func Example() {
	db := open()
	defer db.Close()
	checkpoint := func(ctx context.Context) error { fmt.Println("checkpoint"); return ctx.Err() }

	run := func(ctx context.Context) error {
		locks, err := pglock.NewPool(db) // db is your *sql.DB, on lib/pq or on pgx
		if err != nil {
			return err
		}
		defer locks.Close(ctx)

		return swanlock.Do(ctx, locks, "/lake/checkpoint", func(ctx context.Context, held swanlock.DistributedLock) error {
			return checkpoint(ctx) // on no other host now; ctx ends if the lock is lost
		}, swanlock.WithTTL(30*time.Second), swanlock.WithAutoRefresh())
	}
	fmt.Println(run(context.Background()))
	// Output:
	// checkpoint
	// <nil>
}

// A Session takes locks on a connection of the caller's.
func ExampleNewSession() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	session := pglock.NewSession(conn)
	defer session.Close(ctx) // before the connection goes back

	lock, err := session.TryAcquire(ctx, "nightly-report", swanlock.WithTTL(time.Minute))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lock.Release(ctx))
	// Output:
	// <nil>
}

// One lock on one connection, without waiting: a job that only one host does.
func ExampleTryAcquire() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	conn, _ := db.Conn(ctx)
	defer conn.Close()
	other, _ := db.Conn(ctx)
	defer other.Close()
	var report func(ctx context.Context) error

	nightly := func(ctx context.Context, conn *sql.Conn) error {
		lock, err := pglock.TryAcquire(ctx, conn, "nightly-report")
		switch {
		case err == nil:
			defer lock.Release(ctx)
			return report(ctx)
		case ctx.Err() != nil: // first, since this is ErrNotAcquired too
			return context.Cause(ctx)
		case errors.Is(err, swanlock.ErrNotAcquired):
			return nil // another host does it
		}
		return err
	}
	report = func(ctx context.Context) error {
		fmt.Println("report")
		fmt.Println("another host:", nightly(ctx, other))
		return nil
	}
	fmt.Println("this host:", nightly(ctx, conn))
	// Output:
	// report
	// another host: <nil>
	// this host: <nil>
}

// Acquire waits, for as long as its context allows.
func ExampleSession_Acquire() {
	db := open()
	defer db.Close()
	conn, _ := db.Conn(context.Background())
	defer conn.Close()
	session := pglock.NewSession(conn)
	defer session.Close(context.Background())
	other, _ := db.Conn(context.Background())
	defer other.Close()
	held, _ := pglock.TryAcquire(context.Background(), other, "migrate")
	defer held.Release(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	_, err := session.Acquire(ctx, "migrate")
	switch {
	case err == nil:
		fmt.Println("acquired")
	case ctx.Err() != nil: // it matches swanlock.ErrNotAcquired as well
		fmt.Println("no time left:", context.Cause(ctx))
	default:
		fmt.Println(err)
	}
	// Output:
	// no time left: context deadline exceeded
}

// Readers hold a lock together.
func Example_shared() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	one, _ := db.Conn(ctx)
	defer one.Close()
	two, _ := db.Conn(ctx)
	defer two.Close()

	reader, _ := pglock.TryAcquire(ctx, one, "catalog", swanlock.WithShared())
	_, err := pglock.TryAcquire(ctx, two, "catalog")
	fmt.Println("a writer:", errors.Is(err, swanlock.ErrNotAcquired))
	another, err := pglock.TryAcquire(ctx, two, "catalog", swanlock.WithShared())
	fmt.Println("another reader:", err)
	fmt.Println(reader.Release(ctx), another.Release(ctx))
	// Output:
	// a writer: true
	// another reader: <nil>
	// <nil> <nil>
}

// A fence keeps out a holder that was paused for longer than its TTL and does
// not know yet: what it writes to remembers the highest fence it has seen.
func Example_fence() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	conn, _ := db.Conn(ctx)
	defer conn.Close()

	db.ExecContext(ctx, "CREATE TABLE IF NOT EXISTS pointer (fence bigint NOT NULL, file text NOT NULL)")
	db.ExecContext(ctx, "TRUNCATE pointer")
	db.ExecContext(ctx, "INSERT INTO pointer VALUES (0, '')")
	write := func(held swanlock.DistributedLock, file string) bool {
		res, err := db.ExecContext(ctx, "UPDATE pointer SET fence = $1, file = $2 WHERE fence <= $1", int64(held.Info().Fence), file)
		if err != nil {
			return false
		}
		n, _ := res.RowsAffected()
		return n == 1
	}
	first, _ := pglock.TryAcquire(ctx, conn, "/lake/pointer", swanlock.WithFence())
	first.Release(ctx)
	second, _ := pglock.TryAcquire(ctx, conn, "/lake/pointer", swanlock.WithFence())
	defer second.Release(ctx)

	fmt.Println("the holder writes:", write(second, "b.parquet"))
	fmt.Println("a late writer does:", write(first, "a.parquet"))
	// Output:
	// the holder writes: true
	// a late writer does: false
}

// WithAudit notes who held what, in the statements that take and free the lock.
func ExampleWithAudit() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	conn, _ := db.Conn(ctx)
	defer conn.Close()
	session := pglock.NewSession(conn, pglock.WithAudit())
	defer session.Close(ctx)

	lock, err := session.TryAcquire(ctx, "audited", swanlock.WithOwner("worker-1"))
	if err != nil {
		fmt.Println(err)
		return
	}
	lock.Release(ctx)
	var owner, reason string
	db.QueryRowContext(ctx, "SELECT owner, end_reason FROM lock_audit WHERE key = $1 ORDER BY id DESC LIMIT 1",
		int64(pglock.KeyOf("audited"))).Scan(&owner, &reason)
	fmt.Println(owner, reason)
	// Output:
	// worker-1 released
}

// Refresh restarts the TTL, and finds out whether the lock is still held.
func ExamplePostgresLock_Refresh() {
	ctx := context.Background()
	db := open()
	defer db.Close()
	conn, _ := db.Conn(ctx)
	defer conn.Close()

	lock, err := pglock.TryAcquire(ctx, conn, "slow-job", swanlock.WithTTL(10*time.Second))
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(lock.Refresh(ctx))
	conn.ExecContext(ctx, "SELECT pg_advisory_unlock_all()") // somebody is careless
	fmt.Println(errors.Is(lock.Refresh(ctx), swanlock.ErrLost), errors.Is(lock.Err(), swanlock.ErrLost))
	// Output:
	// <nil>
	// true true
}

// A program that has a pgxpool locks on that.
func ExampleNewPool_pgxpool() {
	ctx := context.Background()
	server, err := pgtest.Migrated()
	if err != nil {
		panic(err)
	}
	pool, err := pgxpool.New(ctx, server.URL())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer pool.Close()

	db := stdlib.OpenDBFromPool(pool)
	defer db.Close()
	locks, err := pglock.NewPool(db)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer locks.Close(ctx)

	held, err := locks.TryAcquire(ctx, "/lake/pgxpool")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(held.Err(), held.Release(ctx))
	// Output: <nil> <nil>
}

func ExampleKeyOf() {
	fmt.Println(pglock.KeyOf("/ducklake/checkpoint/swanlake"))
	fmt.Println(pglock.KeyOf("a//b") == pglock.KeyOf("a/./b"))
	// Output:
	// 1097463690975298865
	// true
}
