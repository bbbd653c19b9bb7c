package mocks_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

// A statement that the server has forgotten stays forgotten.
func TestForgottenStatement(t *testing.T) {
	ctx := context.Background()
	conn, pg := mocks.NewConn(t)
	l := pglock.NewSession(conn)
	pg.ExpectTryAcquire("t")
	pg.ExpectRefresh("t").Fails(mocks.SQLState("26000"))
	pg.ExpectRefresh("t")
	lock := take(t, l)
	if err := lock.Refresh(ctx); err != nil {
		t.Error(err)
	}

	pg.ExpectUndo("u").Fails(mocks.SQLState("26000"))
	pg.ExpectUndo("u")
	const query = "-- name: Undo :one\nSELECT $1, $2"
	stmt, err := conn.PrepareContext(ctx, query)
	if err != nil {
		t.Fatal(err)
	}
	defer stmt.Close()
	var undone bool
	for range 2 {
		if err := stmt.QueryRow(int64(pglock.KeyOf("u")), false).Scan(&undone); !errors.Is(err, mocks.SQLState("26000")) {
			t.Errorf("got %v", err)
		}
	}
	if err := conn.QueryRowContext(ctx, query, int64(pglock.KeyOf("u")), false).Scan(&undone); err != nil {
		t.Error(err)
	}
}

func TestAfter(t *testing.T) {
	conn, pg := mocks.NewConn(t)
	pg.ExpectTryAcquire("t").After(30 * time.Millisecond)
	pg.ExpectRelease("t").After(30 * time.Millisecond)
	start := time.Now()
	take(t, pglock.NewSession(conn)).Release(context.Background())
	if took := time.Since(start); took < 60*time.Millisecond {
		t.Errorf("took %v", took)
	}
}

// watchedT is a *testing.T that keeps what a script finds wrong.
type watchedT struct {
	exampleT
	failures []string
}

func (t *watchedT) Errorf(format string, args ...any) {
	t.failures = append(t.failures, fmt.Sprintf(format, args...))
}

func BenchmarkNewConn(b *testing.B) {
	ctx := context.Background()
	for b.Loop() {
		w := &watchedT{}
		conn, pg := mocks.NewConn(w)
		pg.ExpectTryAcquire("t")
		pg.ExpectRelease("t")
		l, err := pglock.TryAcquire(ctx, conn, "t")
		if err != nil {
			b.Fatal(err)
		}
		l.Release(ctx)
		if w.end(); len(w.failures) > 0 {
			b.Fatal(w.failures)
		}
	}
}
