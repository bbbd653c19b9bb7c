package pglock

import (
	"context"
	"errors"
	"slices"
)

// A holder in the pool passes its lock on to the pool's first waiter, if that one
// is first in the line of all hosts, too: the statement that unlocks the lock
// takes it again. The waiter needs no session to wait on meanwhile. Nobody is
// overtaken: a session in the server's queue has the lock once it is unlocked,
// and the waiter then fails to take it.

// mayAsk reports whether me is first in its queue, and whether it is to ask the
// server for the lock, as it need not wait for a holder in the pool. If so, asked is
// to be called afterwards. free says that nobody of the pool holds the lock, so that
// me, which is first in line, is likely to get it without a wait. A waiter that has
// rested for long asks all the same: the pool may not know yet that the holder's
// session is gone.
func (p *Pool) mayAsk(me *waiter, rested bool) (ask, first, free bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.queues[me.r.key].waiters[0] != me {
		return false, false, false
	}
	c := p.claims[me.r.key]
	next := me.isNext()
	me.asking = me.given == nil && (rested || c == nil || c.shared || !next)
	return me.asking, true, c == nil && next
}

// retire makes sure that nothing is passed on to me any more, whose ticket is
// gone. It reports false if something was.
func (p *Pool) retire(me *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	me.asking = me.given == nil
	return me.asking
}

func (p *Pool) asked(me *waiter) {
	p.mu.Lock()
	me.asking = false
	p.mu.Unlock()
}

// canBePassedLocked reports whether a lock that is held on s can be passed on to
// me. The ticket must be on s, so that it ends with the same statement.
func (me *waiter) canBePassedLocked(s *poolSession) bool {
	return me.s == s && me.isNext()
}

// isNext reports whether me is first in the line of all hosts, with its ticket on a
// session that others use too.
func (me *waiter) isNext() bool { return !me.own && me.t.ahead.Load() == 0 }

// refuse gives up what is passed on to a waiter that has left.
func (p *Pool) refuse(o *op) {
	if o.state.CompareAndSwap(calling, left) {
		return
	}
	<-o.done
	if o.err == nil {
		o.h.release(context.Background())
	} else {
		p.unclaim(o.h)
	}
}

// successors returns an acquire for each waiter to which a release among the ops
// passes its lock on.
func (b batcher) successors(ops []*op) (given []*op) {
	p := b.s.p
	for _, o := range ops {
		if o.kind != releasing || o.h.Shared || !b.s.batched(o) || !b.led.contains(o.h) {
			continue
		}
		if next := p.passOn(b, o.h.key); next != nil {
			given = append(given, next)
		}
	}
	return given
}

// A join asks a batch for a ticket in the line of key.
type join struct {
	key  Key
	hint int32 // a number of the line, as of TakeNext
	own  bool  // hint is a ticket of this session's
	taken
}

// joining returns the first of the ops that wants a ticket in a line of which a
// number is known, so that the batch can take it.
func (b batcher) joining(ops []*op) *join {
	for _, o := range ops {
		if o.join == nil {
			continue
		}
		j := o.join
		hint, lowest := b.s.p.hint.numbers(j.key)
		if hint == 0 {
			continue
		}
		own := b.led.numbers(lineHash(j.key))
		for _, o := range ops {
			if o.ticket != nil { // It is given up before.
				own = slices.DeleteFunc(own, func(n int32) bool { return n == o.ticket.number })
			}
		}
		highest := slices.Max(append(own, 0))
		j.hint, j.own, j.lowest = max(hint, highest), highest >= hint, lowest
		return j
	}
	return nil
}

// passOn returns an acquire for the first waiter for key, if it can have the lock
// that is held on the session of b.
func (p *Pool) passOn(b batcher, key Key) *op {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[key]
	if q == nil || p.closed {
		return nil
	}
	me := q.waiters[0]
	if me.asking || me.given != nil || !me.canBePassedLocked(b.s) {
		return nil
	}
	h := newHold(me.r).on(b.turn, b.s)
	p.reserveLocked(b.s)
	p.claimLocked(h, b.s)
	me.given = &op{kind: acquiring, ctx: me.ctx, h: h, ticket: me.t, done: make(chan struct{}), end: func() {
		p.mu.Lock()
		me.wakeLocked()
		p.mu.Unlock()
	}}
	return me.given
}

// passed returns the lock if one was passed on to me. It waits for the answer
// until ctx ends or the pool closes.
func (p *Pool) passed(ctx context.Context, me *waiter) (*PostgresLock, error) {
	p.mu.Lock()
	o := me.given
	p.mu.Unlock()
	if o == nil {
		return nil, nil
	}
	select {
	case <-o.done:
	case <-ctx.Done():
	case <-p.life.Done():
	}
	gaveUp := o.state.CompareAndSwap(calling, left) // Then the batcher releases what is granted.
	p.mu.Lock()
	me.given = nil
	p.mu.Unlock()
	if gaveUp {
		return nil, nil
	}
	<-o.done
	if o.err == nil {
		return o.h.beginInPool(), nil
	}
	p.unclaim(o.h)
	if elsewhere(o.err) || errors.Is(o.err, errSessionGone) {
		return nil, nil
	}
	return nil, o.err
}
