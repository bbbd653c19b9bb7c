package rawconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// noServer is a driver whose connections lead nowhere, so that a test can open
// and close many.
type noServer struct{ driver.Conn }

func (n noServer) Connect(context.Context) (driver.Conn, error) { return n, nil }
func (n noServer) Driver() driver.Driver                        { return nil }
func (n noServer) Close() error                                 { return nil }

// TestWhileClosed uses connections while their owner closes them, until it
// has met the moment at which conn.Raw panics.
func TestWhileClosed(t *testing.T) {
	db := sql.OpenDB(noServer{})
	defer db.Close()
	until, open, done := time.Now().Add(time.Second), 0, 0
	for time.Now().Before(until) {
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var ready atomic.Bool
		closed := make(chan error)
		go func() {
			for !ready.Load() {
				runtime.Gosched()
			}
			closed <- conn.Close()
		}()
		ready.Store(true)
		switch err := Raw(conn, func(any) error { return nil }); {
		case err == nil:
			open++
		case errors.Is(err, sql.ErrConnDone):
			done++
		default:
			t.Fatal(err)
		}
		<-closed
	}
	t.Logf("%d found it open, %d closed", open, done)
}

func TestPanics(t *testing.T) {
	db := sql.OpenDB(noServer{})
	defer db.Close()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer func() {
		if got := recover(); got != "the driver's" {
			t.Errorf("recovered %v, want the panic of the function", got)
		}
	}()
	Raw(conn, func(any) error { panic("the driver's") })
}
