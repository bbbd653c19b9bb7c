package oneconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A counted is a driver whose connections lead nowhere, and count how often they are
// closed.
type counted struct {
	driver.Conn
	closes *atomic.Int32
}

func (c counted) Connect(context.Context) (driver.Conn, error) { return c, nil }
func (c counted) Driver() driver.Driver                        { return nil }
func (c counted) Close() error                                 { c.closes.Add(1); return nil }

// impatient is a Waiter that does not wait.
type impatient struct{}

func (impatient) Silent(time.Duration) time.Duration { return 0 }

// TestDoPanics: database/sql closes the connection of a driver that has panicked, and
// nobody closes it a second time.
func TestDoPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closes := new(atomic.Int32)
		db := sql.OpenDB(counted{closes: closes})
		defer db.Close()
		conn, err := db.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		c := New(conn, func(query string) string { return query })
		func() {
			defer func() {
				if recover() == nil {
					t.Error("the panic was not passed on")
				}
			}()
			c.Do(t.Context(), impatient{}, func(context.Context) error { panic("the driver has a bug") })
		}()
		time.Sleep(2 * Patience)
		synctest.Wait()
		if n := closes.Load(); n != 1 {
			t.Errorf("the connection was closed %d times, want once", n)
		}
	})
}
