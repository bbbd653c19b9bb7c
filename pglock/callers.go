package pglock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// callers are the calls that wait for the first answer of a session. A session
// behind a pooler is silent until the pooler has a connection to the server for
// it, and looks like one whose server is dead. Only the callers' deadlines say
// how long that is worth waiting for. A caller without a deadline makes nothing
// wait for longer.
type callers struct {
	mu      sync.Mutex
	waiting []*waitingCaller
}

type waitingCaller struct{ ctx context.Context }

// add notes that a caller with the context ctx waits, until gone is called.
func (c *callers) add(ctx context.Context) (gone func()) {
	if _, ok := ctx.Deadline(); !ok {
		return func() {}
	}
	me := &waitingCaller{ctx}
	c.mu.Lock()
	c.waiting = append(c.waiting, me)
	c.mu.Unlock()
	return func() {
		c.mu.Lock()
		c.waiting = slices.DeleteFunc(c.waiting, func(o *waitingCaller) bool { return o == me })
		c.mu.Unlock()
	}
}

// left returns how much longer the most patient of them waits, and 0 if none
// waits.
func (c *callers) left() (left time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.waiting {
		if deadline, ok := w.ctx.Deadline(); ok && w.ctx.Err() == nil {
			left = max(left, time.Until(deadline))
		}
	}
	return left
}

// lookAgain is how often it is checked whether callers still wait for a silent
// session.
const lookAgain = 250 * time.Millisecond

// whileAwaited returns a context that ends with life, or when d has passed and
// no caller waits any more.
func (c *callers) whileAwaited(life context.Context, d time.Duration) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(life)
	var timer *time.Timer
	var mu sync.Mutex // until timer is set
	mu.Lock()
	timer = time.AfterFunc(d, func() {
		mu.Lock()
		defer mu.Unlock()
		if c.left() == 0 {
			cancel(context.DeadlineExceeded)
			return
		}
		if ctx.Err() == nil {
			timer.Reset(lookAgain)
		}
	})
	mu.Unlock()
	return ctx, func() { cancel(nil); timer.Stop() }
}
