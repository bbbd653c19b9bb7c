package pglock

import (
	"context"
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
type watch struct {
	life  context.Context // what they run under
	timer *time.Timer     // ends life
}

// over runs a statement detached from ctx: a cancelled query costs the session
// with either driver, and may be granted all the same. If the statement takes
// too long it is cut, and the error is errSilent, whatever it did.
func (w *watch) over(ctx context.Context, statement func(context.Context) error) error {
	limit := patience
	if deadline, ok := ctx.Deadline(); ok {
		limit = min(limit, max(time.Until(deadline), 0)+grace)
	}
	if w.timer == nil {
		life, end := context.WithCancel(context.Background())
		w.life, w.timer = life, time.AfterFunc(limit, end)
	} else {
		w.timer.Reset(limit)
	}
	err := statement(detached{w.life, ctx})
	if !w.timer.Stop() { // it went off, perhaps just now
		w.timer = nil
		if err != nil {
			err = errSilent
		}
	}
	return err
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
