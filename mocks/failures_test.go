package mocks_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

// Each of these tests must fail, and say why.
func TestFailures(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]struct {
		run  func(conn *sql.Conn, pg *mocks.Postgres)
		want string
	}{
		"unmet": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			pg.ExpectRelease("t")
			pglock.TryAcquire(ctx, conn, "t")
		}, `never asked for: Release of "t"`},
		"unmet, of its own": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectExec("DELETE")
		}, "DELETE"},
		"an undo that is not sent": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").HeldElsewhere()
			pg.ExpectUndo("t")
			pglock.TryAcquire(ctx, conn, "t")
		}, `never asked for: Undo of "t"`},
		"unexpected": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pglock.TryAcquire(ctx, conn, "t")
		}, "unexpected TryAcquire of a target whose key is"},
		"out of order": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("a")
			pg.ExpectTryAcquire("b")
			pglock.TryAcquire(ctx, conn, "b")
		}, `unexpected TryAcquire of "b": the next lock expectation is TryAcquire of "a"`},
		"a statement of its own is missing": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectExec("DELETE")
			pg.ExpectTryAcquire("t")
			pglock.TryAcquire(ctx, conn, "t")
		}, `unexpected TryAcquire of "t"`},
		"a release too many": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			l, _ := pglock.TryAcquire(ctx, conn, "t")
			l.Release(ctx)
		}, `unexpected Release of "t": the next lock expectation is nothing`},
		"a refresh too many": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			l, _ := pglock.TryAcquire(ctx, conn, "t")
			l.Refresh(ctx)
		}, `unexpected Refresh of "t"`},
		"another verb": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			pg.ExpectRelease("t")
			l, _ := pglock.TryAcquire(ctx, conn, "t")
			l.Refresh(ctx)
		}, `unexpected Refresh of "t": the next lock expectation is Release of "t"`},
		"another target": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			pglock.TryAcquire(ctx, conn, "u")
		}, `the next lock expectation is TryAcquire of "t"`},
		"taken twice": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			pglock.TryAcquire(ctx, conn, "t", swanlock.WithTTL(time.Hour))
			pglock.TryAcquire(ctx, conn, "t", swanlock.WithTTL(time.Hour))
		}, "script that with AlreadyHeld"},
		"held elsewhere too often": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").HeldElsewhere()
			pglock.TryAcquire(ctx, conn, "t")
			pglock.TryAcquire(ctx, conn, "t")
		}, `unexpected TryAcquire of "t"`},
		"TTL": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithTTL(time.Hour)
			pglock.TryAcquire(ctx, conn, "t", swanlock.WithTTL(time.Minute))
		}, `has a lease of "60000" ms, not "3600000"`},
		"no TTL": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithTTL(0)
			pglock.TryAcquire(ctx, conn, "t", swanlock.WithTTL(time.Minute))
		}, `has a lease of "60000" ms, not ""`},
		"audited TTL": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithTTL(time.Hour)
			pglock.NewSession(conn, pglock.WithAudit()).TryAcquire(ctx, "t")
		}, "has a TTL of 0 ms, not 3600000"},
		"shared": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithShared()
			pglock.TryAcquire(ctx, conn, "t")
		}, "exclusive, not shared"},
		"exclusive": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithExclusive()
			pglock.TryAcquire(ctx, conn, "t", swanlock.WithShared())
		}, "shared, not exclusive"},
		"fence": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithFence()
			pglock.TryAcquire(ctx, conn, "t")
		}, "wants no fence"},
		"a fence for none": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").GrantedWithFence(9)
			pglock.TryAcquire(ctx, conn, "t")
		}, "wants no fence"},
		"audit": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithAudit("me")
			pglock.TryAcquire(ctx, conn, "t", swanlock.WithOwner("me"))
		}, "is not audited"},
		"owner": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t").WithAudit("me")
			pglock.NewSession(conn, pglock.WithAudit()).TryAcquire(ctx, "t", swanlock.WithOwner("you"))
		}, `for "you", not "me"`},
		"stacked": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			pg.ExpectTryAcquire("t")
			const twice = "-- name: TryAcquire :one\nSELECT $1, $2"
			for range 2 {
				conn.QueryRowContext(ctx, twice, "session", int64(pglock.KeyOf("t"))).Scan()
			}
		}, "would need two unlocks"},
		"another lock than was granted": {func(conn *sql.Conn, pg *mocks.Postgres) {
			pg.ExpectTryAcquire("t")
			pg.ExpectRelease("t")
			pglock.TryAcquire(ctx, conn, "t")
			conn.QueryRowContext(ctx, "-- name: ReleaseWith :one\nSELECT $1, $2, $3, $4, $5, $6", int64(4001), true, int64(pglock.KeyOf("t")), "", "", "").Scan()
		}, "not the lock that was granted"},
		"an audit corrected without cause": {func(conn *sql.Conn, pg *mocks.Postgres) {
			conn.ExecContext(ctx, "-- name: AuditLost :exec\nUPDATE", int64(3))
		}, "unexpected AuditLost of the audit's row 3"},
		"arguments that are not known": {func(conn *sql.Conn, pg *mocks.Postgres) {
			conn.ExecContext(ctx, "-- name: AuditLost :exec\nUPDATE", int64(3), int64(4))
		}, "AuditLost has 2 arguments, not 1"},
	} {
		t.Run(name, func(t *testing.T) {
			w := &watchedT{}
			conn, pg := mocks.NewConn(w)
			c.run(conn, pg)
			w.end()
			if got := strings.Join(w.failures, "\n"); !strings.Contains(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// Closing a connection waits for its Rows: a test must not hang on that.
func TestRowsLeftOpen(t *testing.T) {
	t.Parallel()
	w := &watchedT{}
	conn, pg := mocks.NewConn(w)
	pg.ExpectQuery("SELECT").WillReturnRows(sqlmock.NewRows([]string{"n"}).AddRow(1))
	rows, err := conn.QueryContext(context.Background(), "SELECT n FROM x")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	w.end()
	if got := strings.Join(w.failures, "\n"); !strings.Contains(got, "close its Rows") {
		t.Errorf("got %q", got)
	}
}

// A lock that outlives its test, as one with auto-refresh may, does not fail it.
func TestOver(t *testing.T) {
	w := &watchedT{}
	conn, pg := mocks.NewConn(w)
	pg.ExpectTryAcquire("t")
	l, err := pglock.TryAcquire(context.Background(), conn, "t")
	if err != nil {
		t.Fatal(err)
	}
	w.end()
	l.Release(context.Background())
	if len(w.failures) > 0 {
		t.Error(w.failures)
	}
}
