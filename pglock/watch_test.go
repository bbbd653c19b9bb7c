package pglock

import (
	"context"
	"database/sql/driver"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A hanging connection returns from a statement only when it is closed.
type hanging struct {
	driver.Conn
	closed chan struct{}
}

func (h hanging) Close() error { close(h.closed); return nil }

// TestWatch: a statement has its caller's values and not his end. One that takes
// too long has an unknown outcome, whatever it says, and is the only one.
func TestWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w watch
		conn := hanging{closed: make(chan struct{})}
		type key struct{}
		ctx, cancel := context.WithCancel(context.WithValue(context.Background(), key{}, "value"))
		cancel()
		if err := w.over(ctx, conn, func(ctx context.Context) error {
			if got := ctx.Value(key{}); got != "value" {
				t.Errorf("got the value %v, want the caller's", got)
			}
			return ctx.Err()
		}); err != nil {
			t.Errorf("got %v from a statement whose caller has gone, want nil", err)
		}
		slow := func(context.Context) error { time.Sleep(patience + grace/2); return nil }
		if err := w.over(context.Background(), conn, slow); err != errSilent {
			t.Errorf("got %v from a statement that took too long, want errSilent", err)
		}
		if err := w.over(context.Background(), conn, context.Context.Err); err != nil {
			t.Errorf("the next one: got %v, want nil", err)
		}
		synctest.Wait()
		select {
		case <-conn.closed:
			t.Error("the connection of a statement that had returned was closed")
		default:
		}
		start := time.Now()
		err := w.over(context.Background(), conn, func(context.Context) error { <-conn.closed; return errors.New("closed") })
		if took := time.Since(start); err != errSilent || took != patience+grace {
			t.Errorf("got %v after %v from a driver that hangs, want errSilent after %v", err, took, patience+grace)
		}
	})
}
