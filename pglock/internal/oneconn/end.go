package oneconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"
)

// End ends the session behind conn. sql.Conn.Close would only give it back to the
// pool. The driver's connection is closed in Raw, where nobody else can use it, and
// before it is, told is called: whoever counts on the session must know before
// anybody else can have what it held. The *sql.Conn follows when its owner's own
// Rows and transaction on it have ended.
//
// The error matches sql.ErrConnDone if the owner has closed conn before: then the
// session may be alive, and told was not called. It is ErrBusy if the connection
// was in use for longer than ctx; then End goes on in the background.
func End(ctx context.Context, conn *sql.Conn, told func()) error {
	closed := make(chan error, 2)
	go func() {
		closed <- conn.Raw(func(driverConn any) error {
			told()
			if c, ok := driverConn.(driver.Conn); ok {
				c.Close()
				closed <- nil
			}
			return driver.ErrBadConn
		})
	}()
	select {
	case err := <-closed:
		if errors.Is(err, sql.ErrConnDone) {
			return err
		}
	case <-ctx.Done():
		return ErrBusy
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-closed:
	case <-timer.C: // the owner's Rows or transaction are open still
	}
	return nil
}
