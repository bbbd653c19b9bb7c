package pgtest_test

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// TestDriversOnRequest: each of them works, alone and below those of pgtest's own,
// and hands out what its comment says.
func TestDriversOnRequest(t *testing.T) {
	for _, name := range pgtest.OnRequest {
		t.Run(name, func(t *testing.T) {
			conn := pgtest.Dial(t, name, "application_name="+name)
			if got := pgtest.One[string](t, conn, "SELECT current_setting('application_name')"); got != name {
				t.Errorf("got the application name %q, want %q", got, name)
			}
			pgtest.One[int](t, conn, "SELECT $1::int", 1)
			_, wrapper, _ := strings.Cut(name, "-")
			pgtest.Must(t, conn.Raw(func(c any) error {
				isValue := reflect.ValueOf(c).Kind() == reflect.Struct
				if want := wrapper == "sqlmw" || wrapper == "instrumentedsql" || wrapper == "nhatotelsql"; isValue != want {
					t.Errorf("a %T is a value: %t, want %t", c, isValue, want)
				}
				if pkg := fmt.Sprintf("%T", c); !strings.Contains(pkg, strings.TrimPrefix(wrapper, "nhat")) {
					t.Errorf("got a %s, want one of %s", pkg, wrapper)
				}
				return nil
			}))
			if pgtest.DriverOf[name] == nil {
				return // sqldb-logger has no driver
			}
			for _, below := range []string{"strict ", "pooled "} {
				conn := pgtest.Dial(t, below+name)
				if below == "pooled " {
					pgtest.PoolerOf(t, conn)
				}
				pgtest.One[int](t, conn, "SELECT $1::int", 1)
			}
		})
	}
}

// TestPgxpool: the driver's Close is not the session's end, each checkout is
// another driver connection of the same backend, and the URL sets the limit.
func TestPgxpool(t *testing.T) {
	o := pgtest.Observe(t)
	db := pgtest.OpenDB(t, "pgxpool", "pool_max_conns=1")
	var pids [2]int
	var conns [2]any
	for i := range pids {
		conn, err := db.Conn(pgtest.Background)
		pgtest.Must(t, err)
		pids[i] = pgtest.PIDOf(t, conn)
		pgtest.Must(t, conn.Raw(func(c any) error { conns[i] = c; return nil }))
		if i == 1 {
			ctx, cancel := context.WithTimeout(pgtest.Background, aWhile)
			defer cancel()
			if _, err := db.Conn(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v for a second connection of one, want %v", err, context.DeadlineExceeded)
			}
			conn.Raw(func(any) error { return driver.ErrBadConn }) // the driver's Close
			if !o.Alive(pids[i]) {
				t.Error("the driver's Close ended the session")
			}
		}
		conn.Close()
	}
	if pids[0] != pids[1] {
		t.Errorf("got the backends %v, want one", pids)
	}
	if conns[0] == conns[1] {
		t.Error("two checkouts gave the same driver connection")
	}

	// Without a limit in the URL there is room for tests that are not about it.
	db = pgtest.OpenDB(t, "pgxpool")
	for range 8 {
		pgtest.PIDOf(t, pgtest.ConnOf(t, db))
	}
}
