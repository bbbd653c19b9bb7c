package pglock

import (
	"context"
	"database/sql/driver"
	"errors"
	"time"
)

const (
	// patience is how long a statement may take. None of ours waits for
	// anything but the server.
	patience = 5 * time.Second
	// grace is how much longer than its context a statement may take: a cut
	// would cost the session, and an answer is usually under way.
	grace = 500 * time.Millisecond
)

var errSilent = errors.New("the server did not answer in time")

// A watch bounds the statements of one session, one at a time. It does what
// context.WithTimeout would do, without its cost for each of them.
type watch struct{ life *life }

// A life is what statements run under, until one of them takes too long.
type life struct {
	context.Context
	end      context.CancelFunc
	timer    *time.Timer   // cuts the statement under way
	conn     driver.Conn   // that it is on
	returned chan struct{} // closed when it has been cut and has returned
}

// over runs a statement on conn, detached from ctx: a cancelled query costs the
// session with either driver, and may be granted all the same. If the statement
// takes too long it is cut, and the error is errSilent, whatever it did.
func (w *watch) over(ctx context.Context, conn driver.Conn, statement func(context.Context) error) error {
	limit := patience
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(deadline), 0)+grace)
	}
	l := w.life
	if l == nil {
		l = &life{returned: make(chan struct{}), conn: conn}
		l.Context, l.end = context.WithCancel(context.Background())
		l.timer = time.AfterFunc(limit, l.cut)
		w.life = l
	} else {
		l.conn = conn
		l.timer.Reset(limit)
	}
	err := statement(detached{l, ctx})
	if l.timer.Stop() {
		l.conn = nil
		return err
	}
	w.life = nil // it went off, perhaps just now, and what it did is not known
	close(l.returned)
	return errSilent
}

// cut ends the life. lib/pq then asks the server to cancel, and waits for its
// answer even so: if there is none, only the connection's end makes it return.
// Its Close allows for a read that is under way, as its own Listener has it; pgx
// has returned by then.
func (l *life) cut() {
	l.end()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-l.returned:
		return
	case <-timer.C:
	}
	select {
	case <-l.returned: // both were so: it needs no help
	default:
		l.conn.Close()
	}
}

// detached is a context that ends with its own life and has another's values.
type detached struct {
	context.Context
	values context.Context
}

func (d detached) Value(key any) any {
	if v := d.Context.Value(key); v != nil {
		return v
	}
	return d.values.Value(key)
}
