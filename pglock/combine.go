package pglock

import (
	"context"
	"slices"
	"sync"
)

// A combiner is those who want something of a pool's session. Whoever finds it
// free leads: he sends what has gathered, for all, and hands the lead to one of
// those who came meanwhile. No goroutine belongs to it.
type combiner struct {
	mu     sync.Mutex
	busy   bool
	proofs []*op // refreshes: one statement does for all
	queue  []*op // the rest, in order
	spare  []*op // the queue's other array

	// For the leader alone.
	releases, acquires []*op
	keys               []byte
}

const (
	// batchSize is the most that travels in one statement, and
	aloneSize = 8 // the most that travel alone before the proofs have their turn again
	batchSize = 512
)

type opKind uint8

const (
	acquiring opKind = iota
	releasing
	refreshing // h is nil for a heartbeat
	alone      // f, which is never withdrawn
)

// An op is what one caller wants of a session.
type op struct {
	kind opKind
	ctx  context.Context // of an acquire
	h    *hold
	r    request
	f    func(context.Context) error
	err  error
	lead chan bool // true: it is yours to lead; false: done
}

// batched says whether o can share a statement with others. A fence must be
// newer than its grant, an audit's row belongs to one lock, and of readers there
// may be several.
func (o *op) batched(audit bool) bool {
	switch o.kind {
	case acquiring:
		return !o.r.Shared && !o.r.Fence && !audit
	case releasing:
		return !o.h.info.Shared && o.h.audit == 0
	}
	return false
}

// do has o done, by this goroutine or another. An acquire or refresh whose
// context ends before it was sent is not sent.
func (s *poolSession) do(ctx context.Context, o *op) error {
	c := &s.combiner
	c.mu.Lock()
	if o.kind == refreshing {
		c.proofs = append(c.proofs, o)
	} else {
		c.queue = append(c.queue, o)
	}
	if c.busy {
		o.lead = make(chan bool, 1)
		c.mu.Unlock()
		if !c.wait(ctx, o) {
			return o.err
		}
	} else {
		c.busy = true
		c.mu.Unlock()
	}
	s.serve()
	return o.err
}

// solo has f done in a statement, or several, of its own. It is never withdrawn.
func (s *poolSession) solo(f func(context.Context) error) error {
	return s.do(context.Background(), &op{kind: alone, f: f})
}

// wait returns true when it is o's to lead, false when o is done.
func (c *combiner) wait(ctx context.Context, o *op) bool {
	if o.kind == releasing || o.kind == alone {
		return <-o.lead
	}
	select {
	case lead := <-o.lead:
		return lead
	case <-ctx.Done():
	}
	c.mu.Lock()
	list := &c.queue
	if o.kind == refreshing {
		list = &c.proofs
	}
	if i := slices.Index(*list, o); i >= 0 && len(o.lead) == 0 {
		*list = slices.Delete(*list, i, i+1)
		c.mu.Unlock()
		if o.err = context.Cause(ctx); o.kind == acquiring {
			o.err = notAcquired(ctx)
		}
		return false
	}
	c.mu.Unlock()
	return <-o.lead // under way already, or ours to lead
}

// take is what the next statements are for.
func (c *combiner) take(audit bool) (proofs, batch []*op) {
	c.mu.Lock()
	defer c.mu.Unlock()
	proofs, c.proofs = c.proofs, nil
	n, serial := 0, 0
	for n < len(c.queue) && n < batchSize && serial < aloneSize {
		if !c.queue[n].batched(audit) {
			serial++
		}
		n++
	}
	batch = c.queue[:n:n]
	c.queue = append(c.spare[:0], c.queue[n:]...)
	return proofs, batch
}

// done tells those whose ops were done, and hands on the lead.
func (c *combiner) done(proofs, batch []*op) {
	for _, ops := range [][]*op{proofs, batch} {
		for _, o := range ops {
			if o.lead != nil {
				o.lead <- false
			}
		}
		clear(ops)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spare = batch[:0]
	switch {
	case len(c.proofs) > 0:
		c.proofs[0].lead <- true
	case len(c.queue) > 0:
		c.queue[0].lead <- true
	default:
		c.busy = false
	}
}

// serve does what has gathered, for all: so it depends on nobody's context.
func (s *poolSession) serve() {
	proofs, batch := s.combiner.take(s.p.audit)
	defer s.combiner.done(proofs, batch) // also should a driver panic
	if err := s.led.takeSoon(); err != nil {
		s.w.destroy(s.led, err)
	} else {
		defer s.led.give()
	}
	whole := false
	defer func() {
		if !whole { // the driver panicked: what became of them nobody knows
			for _, o := range slices.Concat(proofs, batch) {
				o.err = errSessionGone
			}
			s.led.lose(errSessionGone)
		}
	}()
	s.run(context.Background(), proofs, batch)
	whole = true
}
