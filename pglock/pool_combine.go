package pglock

import (
	"context"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
)

// A combiner lets the callers of a session share statements (flat combining): the
// ops that they queue while a statement is under way are sent together in the
// next one. A goroutine sends them, so that a caller can leave before it has an
// answer, and a driver that never returns blocks that goroutine alone. The
// goroutine runs only while ops are queued.
type combiner struct {
	// send sends the ops, and returns others that it has sent with them. The
	// goroutine calls it.
	send func(proofs, batch []*op) (given []*op)

	mu     sync.Mutex
	busy   bool  // the goroutine runs
	proofs []*op // refreshes, which one statement does for all locks
	queue  []*op // the other ops, in order
	spare  []*op // an array that the queue can use again
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
func (o *op) batched() bool {
	switch o.kind {
	case acquiring:
		return true
	case releasing:
		return o.h.audit == 0 || o.h.schema == o.h.led.schema
	}
	return false
}

// add queues o. Its done is closed when it was sent, or has failed.
func (c *combiner) add(o *op) {
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
		go c.serve()
	}
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

// serve sends what is queued until nothing is.
func (c *combiner) serve() {
	for {
		runtime.Gosched() // Those who have their answer now may want to travel with the next statement.
		proofs, batch := c.take()
		if len(proofs)+len(batch) == 0 {
			return
		}
		given := c.send(proofs, batch)
		for _, ops := range [][]*op{proofs, batch, given} {
			for _, o := range ops {
				if o.end != nil {
					o.end()
				}
				close(o.done)
			}
			clear(ops)
		}
		c.mu.Lock()
		c.spare = batch[:0]
		c.mu.Unlock()
	}
}

// take returns the ops that are to be sent next. If there are none, the
// combiner is not busy any more.
func (c *combiner) take() (proofs, batch []*op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.proofs)+len(c.queue) == 0 {
		c.busy = false
		return nil, nil
	}
	proofs, c.proofs = c.proofs, nil
	n, serial := 0, 0
	for n < len(c.queue) && n < batchSize && serial < aloneSize {
		if !c.queue[n].batched() {
			serial++
		}
		n++
	}
	batch = c.queue[:n:n]
	c.queue = append(c.spare[:0], c.queue[n:]...)
	return proofs, batch
}
