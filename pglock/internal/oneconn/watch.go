package oneconn

import (
	"context"
	"database/sql/driver"
	"sync"
	"time"
)

// grace is how long a driver may take to return once it was told to.
const grace = 500 * time.Millisecond

// A watch bounds how long the statements of a connection take, of which one
// runs at a time. It does what context.WithTimeout would do, without the cost
// of a context for each statement.
type watch struct{ life *life }

// A life is the context of all statements of a connection, until one takes too
// long.
type life struct {
	context.Context
	end   context.CancelFunc
	timer *time.Timer

	mu       sync.Mutex
	waiter   Waiter
	on       driver.Conn   // the connection of the statement under way
	sent     time.Time     // when that statement began
	over     bool          // this life is not used any more
	cut      bool          // the statement under way is being ended
	returned chan struct{} // closed when the last statement of this life has returned
}

func (w *watch) start(on driver.Conn, waiter Waiter) *life {
	l := w.life
	if l == nil {
		l = &life{Context: context.Background(), end: func() {}, returned: make(chan struct{})}
		if !fromPq(on) {
			l.Context, l.end = context.WithCancel(l.Context)
		}
		w.life = l
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on, l.waiter, l.sent = on, waiter, time.Now()
	if l.timer == nil {
		l.timer = time.AfterFunc(Patience, l.late)
	} else {
		l.timer.Reset(Patience)
	}
	return l
}

// stop ends the watch over a statement that has returned, and reports whether
// it was in time. If it was not, what it did is not known.
func (w *watch) stop(l *life) bool {
	stopped := l.timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on, l.waiter = nil, nil
	if stopped && !l.cut {
		return true
	}
	w.life, l.over = nil, true // The timer has gone off, so late may be about to run.
	l.timer.Stop()
	close(l.returned)
	if !l.cut {
		l.end()
	}
	return !l.cut
}

// late is called when a statement takes long. It asks the waiter how much
// longer to wait for the answer, and ends the statement if there is no more
// time.
func (l *life) late() {
	l.mu.Lock()
	if l.over || l.waiter == nil {
		l.mu.Unlock()
		return
	}
	if more := l.waiter.Silent(time.Since(l.sent)); more > 0 {
		l.timer.Reset(more)
		l.mu.Unlock()
		return
	}
	l.cut = true
	on := l.on
	l.mu.Unlock()
	l.cutOff(on)
}

// cutOff ends a statement that takes too long. pgx returns when the context
// ends, and its connection must not be closed before that. lib/pq, when a
// context ends, asks the server on one more connection to cancel the query, and
// waits for that without a bound. So a statement of lib/pq has a context that
// never ends, and its connection is closed, which lib/pq allows at any time.
// With another driver, which may be a wrapper of either, the context is ended
// first, and the connection closed if that did not help.
func (l *life) cutOff(on driver.Conn) {
	l.end()
	if !fromPq(on) {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-l.returned:
			return
		case <-timer.C:
		}
		select {
		case <-l.returned: // The statement returned at the same time.
			return
		default:
		}
	}
	on.Close()
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
