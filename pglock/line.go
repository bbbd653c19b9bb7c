package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// locksPerSession is how many locks are put on one session before the next is
// taken: every statement of a session walks the locks that it holds (measured:
// 92 µs for an acquire and a release with none held, 102 with 100, 176 with
// 1,000).
const locksPerSession = 400

// connecting is how long a new session may take.
const connecting = 10 * time.Second

// batchSize is the most that travels in one statement.
const batchSize = 512

var errSessionGone = errors.New("the pool's session is gone")

// A line is a session of a pool and those who want something of it. Whoever
// finds it free leads: it sends what has gathered, for all, and hands the lead
// to one of those who came meanwhile. No goroutine belongs to it.
type line struct {
	p      *Pool
	leased bool // for locks with a TTL
	locks  int  // held or asked for; guarded by p.mu
	gone   bool // not in p.lines any more; guarded by p.mu

	ready  chan struct{} // closed when opened, or failed
	failed error         // why it could not be opened
	pid    int32
	w      *wire
	led    *ledger
	before timeouts // what the settings were

	mu    sync.Mutex
	busy  bool
	queue []*op
	spare []*op // the queue's other array

	// For the leader alone.
	releases, acquires []*op
	keys               []byte
	beat               *time.Timer
	every              time.Duration // what beat was set to
	idle               time.Time     // since when it has held nothing
	closed             bool
}

type opKind uint8

const (
	acquiring opKind = iota
	releasing
	refreshing // h is nil for a heartbeat
	flushing   // what is owed; h is nil
	closing    // h is nil
)

// An op is what one caller wants of a session.
type op struct {
	kind opKind
	h    *hold
	r    request
	err  error
	lead chan bool // true: it is yours to lead; false: done
}

// batchable says whether o can share a statement with others. A fence must be
// newer than its grant, an audit's row belongs to one lock, and readers may
// stack.
func (ln *line) batchable(o *op) bool {
	switch o.kind {
	case acquiring:
		return !o.r.Shared && !o.r.Fence && !ln.p.audit
	case releasing:
		return !o.h.info.Shared && o.h.audit == 0
	}
	return false
}

func newLine(p *Pool, leased bool) *line {
	return &line{p: p, leased: leased, ready: make(chan struct{})}
}

// open takes a connection of the caller's pool and looks at what is behind it.
// Many may be waiting for it, so it depends on nobody's context.
func (ln *line) open() {
	defer close(ln.ready)
	ctx, cancel := context.WithTimeout(ln.p.life, connecting)
	defer cancel()
	if ln.failed = ln.connect(ctx); ln.failed != nil {
		ln.p.drop(ln, false)
	}
}

func (ln *line) connect(ctx context.Context) (err error) {
	conn, err := ln.p.db.Conn(ctx)
	if err != nil {
		return ln.p.scarce(fmt.Errorf("no connection: %w", err))
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	stmts := &prepared{Conn: conn, stmts: make(map[string]*sql.Stmt)}
	ln.w = &wire{config: ln.p.config, conn: conn, q: db.New(stmts), forget: stmts.forget, own: true}
	if ln.led, ln.w.raw, err = ledgerOf(conn); err != nil {
		return err
	}
	if err := ln.led.takeSoon(); err != nil {
		return err
	}
	defer ln.led.give()
	ln.led.abandon(conn, true, errClosed)
	if err := ln.w.settle(ctx, ln.led); err != nil { // somebody may have given it back with locks on it
		return err
	}
	var row db.PoolOpenRow
	if err := ln.w.ask(ctx, ln.led, func(ctx context.Context) (err error) {
		row, err = ln.w.q.PoolOpen(ctx)
		return err
	}); err != nil {
		ln.w.destroy(ln.led, err)
		return explain(err, false)
	}
	if row.Standby {
		return ErrStandby
	}
	ln.pid, ln.before = row.Pid, timeouts{row.Idle, row.IdleInTransaction}
	ln.led.pool = ln
	ln.p.measured(row.Room)
	ln.every = ln.interval()
	ln.beat = time.AfterFunc(ln.every, ln.heartbeat)
	return nil
}

// opened waits until whoever opens the session is through.
func (ln *line) opened(ctx context.Context) error {
	select {
	case <-ln.ready:
		return ln.failed
	case <-ctx.Done():
		return ln.p.scarce(notAcquired(ctx))
	}
}

// scarce adds to err that the *sql.DB has no connection to give.
func (p *Pool) scarce(err error) error {
	if s := p.db.Stats(); s.MaxOpenConnections > 0 && s.InUse >= s.MaxOpenConnections {
		return fmt.Errorf("all %d connections of the *sql.DB are in use: raise SetMaxOpenConns: %w", s.MaxOpenConnections, err)
	}
	return err
}

// do has o done, by this goroutine or another. An acquire whose context ends
// before it was sent is not sent.
func (ln *line) do(ctx context.Context, o *op) error {
	ln.mu.Lock()
	ln.queue = append(ln.queue, o)
	if ln.busy {
		o.lead = make(chan bool, 1)
		ln.mu.Unlock()
		if !ln.wait(ctx, o) {
			return o.err
		}
	} else {
		ln.busy = true
		ln.mu.Unlock()
	}
	ln.serve()
	return o.err
}

// wait returns true when it is o's to lead, false when o is done.
func (ln *line) wait(ctx context.Context, o *op) bool {
	if o.kind == releasing {
		return <-o.lead
	}
	select {
	case lead := <-o.lead:
		return lead
	case <-ctx.Done():
	}
	ln.mu.Lock()
	if i := slices.Index(ln.queue, o); i >= 0 && len(o.lead) == 0 {
		ln.queue = slices.Delete(ln.queue, i, i+1)
		ln.mu.Unlock()
		o.err = notAcquired(ctx)
		if o.kind != acquiring {
			o.err = context.Cause(ctx)
		}
		return false
	}
	ln.mu.Unlock()
	return <-o.lead // under way already, or ours to lead
}

// serve does what has gathered, and hands on the lead. It is done for many, so
// it depends on nobody's context.
func (ln *line) serve() {
	ln.mu.Lock()
	batch := ln.queue
	if len(batch) > batchSize {
		ln.queue = append(ln.spare[:0], batch[batchSize:]...)
		batch = batch[:batchSize]
	} else {
		ln.queue = ln.spare[:0]
	}
	ln.mu.Unlock()

	batch = ln.overdue(batch)
	ln.run(context.Background(), batch)
	for _, o := range batch {
		if o.lead != nil {
			o.lead <- false
		}
	}
	clear(batch)

	ln.mu.Lock()
	ln.spare = batch[:0]
	if len(ln.queue) > 0 {
		ln.queue[0].lead <- true
	} else {
		ln.busy = false
	}
	ln.mu.Unlock()
}

// overdue adds the release of what has ended here without one.
func (ln *line) overdue(batch []*op) []*op {
	ln.led.mu.Lock()
	defer ln.led.mu.Unlock()
	for _, h := range ln.led.owed {
		if !slices.ContainsFunc(batch, func(o *op) bool { return o.h == h }) {
			batch = append(batch, &op{kind: releasing, h: h})
		}
	}
	return batch
}

// run does the ops of a batch: first what can share a statement.
func (ln *line) run(ctx context.Context, batch []*op) {
	dead := ln.led.alive()
	if ln.closed {
		dead = errPoolClosed
	}
	if dead != nil {
		ln.fail(batch, dead)
		return
	}
	ln.releases, ln.acquires = ln.releases[:0], ln.acquires[:0]
	refresh := false
	for _, o := range batch {
		switch {
		case o.kind == refreshing:
			refresh = true
		case !ln.batchable(o):
		case o.kind == acquiring:
			ln.acquires = append(ln.acquires, o)
		default:
			ln.releases = append(ln.releases, o)
		}
	}
	together := len(ln.releases)+len(ln.acquires) > 1
	if together {
		ln.together(ctx, ln.releases, ln.acquires)
	}
	for _, o := range batch {
		if o.kind != refreshing && !(together && ln.batchable(o)) {
			ln.alone(ctx, o)
		}
	}
	if refresh {
		ln.prove(ctx, batch)
	}
	clear(ln.releases)
	clear(ln.acquires)
}
