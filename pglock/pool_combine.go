package pglock

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// A combiner lets the callers of a pool's session share statements (flat
// combining): the ops that they queue while a statement is under way are sent
// together in the next one. A goroutine sends them, so that a caller can leave
// before it has an answer, and a driver that never returns blocks that
// goroutine alone. The goroutine runs only while ops are queued.
type combiner struct {
	mu     sync.Mutex
	busy   bool  // the goroutine runs
	proofs []*op // refreshes, which one statement does for all locks
	queue  []*op // the other ops, in order
	spare  []*op // an array that the queue can use again

	releases, acquires []*op // of the batch; used by the goroutine alone
}

const (
	// batchSize is how many operations are sent in one statement, at most.
	batchSize = 512
	// aloneSize is how many are sent one by one before waiting refreshes are served
	// again.
	aloneSize = 8
)

type opKind uint8

const (
	acquiring opKind = iota
	releasing
	refreshing // h is nil for a heartbeat
	running    // f is called
)

// An op is what one caller wants of a session.
type op struct {
	kind  opKind
	ctx   context.Context // of an acquire
	h     *hold
	f     func(context.Context, turn) error
	end   func() // called when the op was sent or has failed; may be nil
	err   error
	state atomic.Int32 // calling, returned or left
	done  chan struct{}

	ticket *ticket // the place in line that an acquire gives up when it is granted; nil: none
	below  int32   // the number of the ticket that a reader may not overtake; 0: any

	join *join // of one that runs: f is to take a ticket, which a batch can do for it; nil: it is not

	// Of an op in a batch: see readers and numbered.
	stays  bool // the session's lock stays as it is, for its other readers
	leader *op  // the op whose answer is this one's too; nil: itself
	place  int  // the number of the answer, from 1 on
}

// batched reports whether o can share a statement with others.
func (s *poolSession) batched(o *op) bool {
	switch o.kind {
	case acquiring:
		return true
	case releasing:
		return o.h.audit == 0 || o.h.schema == s.led.schema
	}
	return false
}

// do queues o and waits until it is done. An acquire or refresh that was not
// sent when its context ends, or when the server is silent, is taken back. A
// caller whose op was sent waits for grace longer, and then leaves: the error
// is errLeft, o is finished in the background, and an acquire is undone.
func (s *poolSession) do(ctx context.Context, o *op) error {
	c := &s.combiner
	o.done = make(chan struct{})
	c.mu.Lock()
	if o.kind == refreshing {
		c.proofs = append(c.proofs, o)
	} else {
		c.queue = append(c.queue, o)
	}
	idle := !c.busy
	c.busy = true
	c.mu.Unlock()
	if idle {
		go s.serve()
	}
	select {
	case <-o.done:
		return o.err
	case <-ctx.Done():
	case <-s.led.silence.quiet():
	}
	if c.withdraw(o) {
		return s.leaving(ctx, o)
	}
	long := grace
	if o.kind == releasing {
		long = cleanupGrace(ctx)
	}
	if !sleepUntil(o.done, long) && o.state.CompareAndSwap(calling, left) {
		return fmt.Errorf("%w: %w", errLeft, s.leaving(ctx, o))
	}
	<-o.done
	return o.err
}

// leaving returns why the caller of o stops waiting for it.
func (s *poolSession) leaving(ctx context.Context, o *op) error {
	dead := s.led.alive()
	switch {
	case dead != nil && o.kind == refreshing && o.h != nil:
		return o.h.over()
	case dead != nil:
		return fmt.Errorf("%w: %w", errSessionGone, dead)
	case ctx.Err() != nil:
		return context.Cause(ctx)
	}
	return oneconn.ErrSilent
}

// withdraw takes o back if it is an acquire or refresh that was not sent, and
// reports whether it did.
func (c *combiner) withdraw(o *op) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	list := &c.queue
	switch o.kind {
	case acquiring:
	case refreshing:
		list = &c.proofs
	default:
		return false
	}
	i := slices.Index(*list, o)
	if i >= 0 {
		*list = slices.Delete(*list, i, i+1)
	}
	return i >= 0
}

// solo calls f with the session's turn, for statements that are not shared.
func (s *poolSession) solo(ctx context.Context, f func(context.Context, turn) error) error {
	return s.do(ctx, &op{kind: running, f: f})
}

// take returns the ops that are to be sent next. If there are none, the
// combiner is not busy any more.
func (s *poolSession) take() (proofs, batch []*op) {
	c := &s.combiner
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.proofs)+len(c.queue) == 0 {
		c.busy = false
		return nil, nil
	}
	proofs, c.proofs = c.proofs, nil
	n, serial := 0, 0
	for n < len(c.queue) && n < batchSize && serial < aloneSize {
		if !s.batched(c.queue[n]) {
			serial++
		}
		n++
	}
	batch = c.queue[:n:n]
	c.queue = append(c.spare[:0], c.queue[n:]...)
	return proofs, batch
}

// serve sends what is queued until nothing is.
func (s *poolSession) serve() {
	for {
		runtime.Gosched() // Those who have their answer now may want to travel with the next statement.
		proofs, batch := s.take()
		if len(proofs)+len(batch) == 0 {
			return
		}
		given := s.serveOnce(proofs, batch)
		for _, ops := range [][]*op{proofs, batch, given} {
			for _, o := range ops {
				if o.end != nil {
					o.end()
				}
				close(o.done)
			}
			clear(ops)
		}
		s.combiner.mu.Lock()
		s.combiner.spare = batch[:0]
		s.combiner.mu.Unlock()
	}
}

// serveOnce sends the ops, and those of the waiters that are given what they
// release (see successors), which it returns.
func (s *poolSession) serveOnce(proofs, batch []*op) (given []*op) {
	defer func() {
		if p := recover(); p != nil { // The driver panicked, and left the ops in an unknown state.
			err := fmt.Errorf("%w: the driver panicked: %v", errSessionGone, p)
			s.led.lose(err)
			all := append(batch, given...)
			for _, o := range slices.Concat(proofs, all) {
				o.err = err
			}
			batcher{turn: turn{s.a, s.led}, s: s}.undoLeft(proofs, all)
		}
	}()
	tn, err := s.a.takeAlways()
	if err == nil {
		defer tn.give()
	} else {
		tn = turn{s.a, s.led} // The session is over, so nothing is sent.
	}
	b := batcher{turn: tn, s: s}
	given = b.successors(batch)
	all := append(batch, given...) // The batch has no room behind it, so this is a copy if there is anything to add.
	b.run(proofs, all)
	b.undoLeft(proofs, all)
	return given
}
