package swanlock

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxObserving is how long a caller waits for an observer.
	maxObserving = 50 * time.Millisecond
	// maxBacklog is how many events are kept for an observer that is late.
	maxBacklog = 10_000
)

// A watch calls an observer such that it can do no harm.
type watch struct {
	observer Observer
	direct   bool         // it never blocks
	late     atomic.Int32 // the calls that have taken longer than maxObserving

	mu       sync.Mutex
	backlog  []notice // what is to be told when no call is late any more
	dropped  int      // how many were too many for that
	warnings sync.Once
}

// A notice is a call of an observer: of Begin, of End, or of both if Begin was
// not called before.
type notice struct {
	t      *told
	op     Op // of the call; 0: there was none
	target string
	end    *Event // nil: only Begin is called
}

// A told is what one observer was told of a call. It is used by the observer's
// goroutines, one after the other.
type told struct {
	ctx   context.Context // what Begin returned
	begun bool            // Begin was called
}

// tell gives notice to the observer. If the observer is late, it gets it after
// what came before it.
func (w *watch) tell(n notice) {
	if w.late.Load() == 0 || !w.postpone(n) {
		w.run(n)
	}
}

func (w *watch) postpone(n notice) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.late.Load() == 0:
		return false
	case len(w.backlog) >= maxBacklog:
		w.dropped++
	default:
		w.backlog = append(w.backlog, n)
	}
	return true
}

// run calls the observer, and reports whether it returned soon.
func (w *watch) run(n notice) bool {
	if w.direct {
		w.guard(n)
		return true
	}
	t := &task{w: w, n: n, done: make(chan struct{})}
	go t.run()
	runtime.Gosched() // Nearly always the observer returns now, and no timer is needed.
	if t.state.Load() == taskReturned {
		return true
	}
	timer := time.NewTimer(maxObserving)
	defer timer.Stop()
	select {
	case <-t.done:
		return true
	case <-timer.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.late.Add(1)
	if !t.state.CompareAndSwap(taskRunning, taskLate) {
		w.late.Add(-1)
		return true
	}
	w.warnings.Do(func() { // The logger may be what blocks.
		go slog.Default().Warn("swanlock: an observer blocks: it is told what happens when it has returned", "observer", fmt.Sprintf("%T", w.observer))
	})
	return false
}

// A task is a call of an observer, in a goroutine of its own.
type task struct {
	w     *watch
	n     notice
	state atomic.Int32
	done  chan struct{}
}

const (
	taskRunning = iota
	taskReturned
	taskLate
)

func (t *task) run() {
	defer t.returned() // also if the observer ends the goroutine
	t.w.guard(t.n)
}

func (t *task) returned() {
	if !t.state.CompareAndSwap(taskRunning, taskReturned) {
		t.w.catchUp()
	}
	close(t.done)
}

// catchUp is called when a late call has returned. The last of them tells the
// backlog.
func (w *watch) catchUp() {
	caughtUp := false
	defer func() {
		if !caughtUp { // The observer has ended the goroutine.
			go w.catchUp()
		}
	}()
	for {
		n, ok := w.next()
		if !ok {
			caughtUp = true
			return
		}
		w.guard(n)
	}
}

func (w *watch) next() (n notice, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.late.Load() > 1 || len(w.backlog) == 0 {
		w.late.Add(-1)
		if w.dropped > 0 && w.late.Load() == 0 {
			go slog.Default().Warn("swanlock: an observer that was late has missed events", "observer", fmt.Sprintf("%T", w.observer), "events", w.dropped)
			w.dropped = 0
		}
		return n, false
	}
	n, w.backlog = w.backlog[0], w.backlog[1:]
	return n, true
}

// guard calls the observer, and logs what it panics with.
func (w *watch) guard(n notice) {
	if !n.t.begun && n.op != 0 {
		w.begin(n)
	}
	if n.end != nil {
		w.end(n)
	}
}

func (w *watch) begin(n notice) {
	defer w.recovered()
	n.t.begun = true
	if ctx := w.observer.Begin(n.t.ctx, n.op, n.target); ctx != nil {
		n.t.ctx = ctx
	}
}

func (w *watch) end(n notice) {
	defer w.recovered()
	ctx := n.t.ctx
	if n.op == 0 {
		ctx = context.WithoutCancel(ctx)
	}
	w.observer.End(ctx, *n.end)
}

func (w *watch) recovered() {
	if p := recover(); p != nil {
		slog.Default().Error("swanlock: an observer panicked", "observer", fmt.Sprintf("%T", w.observer), "panic", p, "stack", string(debug.Stack()))
	}
}

// A called is a call that observers are told of.
type called struct {
	watches []*watch
	op      Op
	target  string
	start   time.Time
	ctx     context.Context // that the call runs under
	told    []told
}

func begin(ctx context.Context, watches []*watch, op Op, target string) called {
	c := called{watches: watches, op: op, target: target, ctx: ctx, told: make([]told, len(watches))}
	for i, w := range watches {
		t := &c.told[i]
		t.ctx = c.ctx
		if w.late.Load() > 0 || !w.run(notice{t, op, target, nil}) {
			continue // The call does not wait, and End comes after it all.
		}
		if t.ctx != c.ctx {
			c.ctx = withValues{c.ctx, t.ctx}
		}
	}
	c.start = time.Now()
	return c
}

func (c *called) end(e Event) {
	e.Took = time.Since(c.start)
	for i, w := range c.watches {
		w.tell(notice{&c.told[i], c.op, c.target, &e})
	}
}

// A withValues has the values of another context as well.
type withValues struct {
	context.Context
	values context.Context
}

func (c withValues) Value(key any) any {
	v := c.values.Value(key)
	if _, isContext := v.(context.Context); v == nil || isContext {
		// context.Cause finds by a value which context was ended, and why.
		if own := c.Context.Value(key); own != nil {
			return own
		}
	}
	return v
}
