package oneconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"
)

// lastWords is how long the server may take to end a session that was asked for it.
const lastWords = 2 * time.Second

// End ends the session behind c. sql.Conn.Close would only give it back to the
// pool, and a driver's Close may do the same: stdlib.OpenDBFromPool's gives it back
// to a pgxpool. So last is called first, to send what makes the server end it, if
// the connection still answers; it may be cut short, or fail. The driver's
// connection is closed in Raw, where nobody else can use it, and before all that,
// told is called: whoever counts on the session must know before anybody else can
// have what it held. The *sql.Conn follows when its owner's own Rows and
// transaction on it have ended.
//
// The error matches sql.ErrConnDone if the owner has closed the *sql.Conn before: then the
// session may be alive, and told was not called. It is ErrBusy if the connection
// was in use for longer than ctx; then End goes on in the background.
func (c *Conn) End(ctx context.Context, told func(), last func(context.Context, *Conn)) error {
	begun, closed := make(chan struct{}), make(chan error, 2)
	go func() {
		closed <- c.conn.Raw(func(driverConn any) error {
			close(begun)
			told()
			if on, ok := driverConn.(driver.Conn); ok {
				speakLast(&Conn{conn: c.conn, text: c.text, on: on}, last)
				on.Close()
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
	case <-begun:
		select {
		case <-closed:
		case <-ctx.Done():
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

// speakLast runs last for a while. What it leaves behind is for the driver's Close
// to end.
func speakLast(c *Conn, last func(context.Context, *Conn)) {
	if last == nil {
		return
	}
	ctx, cancel := context.Background(), func() {}
	if !fromPq(c.on) { // see cutOff
		ctx, cancel = context.WithTimeout(ctx, lastWords)
	}
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { recover() }() // the driver's panic is no reason not to close it
		last(ctx, c)
	}()
	timer := time.NewTimer(lastWords + grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
