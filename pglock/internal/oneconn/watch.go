package oneconn

import (
	"context"
	"database/sql/driver"
	"sync"
	"time"
)

// grace is how long a driver may take to return once it was told to.
const grace = 500 * time.Millisecond

// A watch bounds what runs on a connection, one at a time. It does what
// context.WithTimeout would do, without its cost for each statement.
type watch struct{ life *life }

// A life is what statements run under, until one of them takes too long.
type life struct {
	context.Context
	end   context.CancelFunc
	timer *time.Timer

	mu       sync.Mutex
	waiter   Waiter
	on       driver.Conn   // that the statement under way is on
	sent     time.Time     // when it began
	over     bool          // this life is of no more use
	cut      bool          // what is under way is being ended
	returned chan struct{} // closed when it was cut and has returned
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

// stop reports whether the statement has ended in time. If it has not, what it
// did is not known.
func (w *watch) stop(l *life) bool {
	stopped := l.timer.Stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.on, l.waiter = nil, nil
	if stopped && !l.cut {
		return true
	}
	w.life, l.over = nil, true // its timer has gone off, perhaps just now
	l.timer.Stop()
	close(l.returned)
	if !l.cut {
		l.end()
	}
	return !l.cut
}

// late asks the waiter of a statement what becomes of it.
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

// cutOff ends what takes too long. pgx returns when its context ends, and its
// connection may not be closed before. lib/pq asks the server, on one more
// connection, to cancel a query whose context ends, and waits for that without a
// bound: so its context never ends, and its connection is closed, which it allows
// at any time. A driver that was wrapped is told both.
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
		case <-l.returned: // both were so
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
