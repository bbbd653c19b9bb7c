package oneconn

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"time"

	"github.com/swanlake-io/swanlock/internal/rawconn"
)

// lastWords is how long the server may take to end a session that asks it to.
const lastWords = 2 * time.Second

// End ends the session behind c. sql.Conn.Close would only give it back to the
// *sql.DB, and a driver's Close may do the same: stdlib.OpenDBFromPool's gives
// it back to a pgxpool.
//
// So End first calls told, which tells the holders of the session's locks: they
// must know before another session can have what it held. Then it calls last,
// to send the statement that makes the server end the session, if the
// connection still answers; last may be cut short, or fail. Then it closes the
// driver's connection. All this happens in Raw, where nothing else can use the
// connection. The *sql.Conn is closed when its owner's own Rows and transaction
// on it have ended.
//
// The error matches sql.ErrConnDone if the owner had closed the *sql.Conn: then
// the session may be alive, and told was not called. It is ErrBusy if the
// connection was in use until ctx ended; then End goes on in the background.
func (c *Conn) End(ctx context.Context, told func(), last func(context.Context, *Conn)) error {
	begun, closed := make(chan struct{}), make(chan error, 2)
	go func() {
		closed <- rawconn.Raw(c.conn, func(driverConn any) error {
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
	case <-timer.C: // The owner's Rows or transaction are still open.
	}
	return nil
}

// speakLast calls last, and returns after lastWords and grace even if last has
// not returned. The driver's Close then ends what is under way.
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
		defer func() { recover() }() // The connection is closed even if the driver panics.
		last(ctx, c)
	}()
	timer := time.NewTimer(lastWords + grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	}
}
