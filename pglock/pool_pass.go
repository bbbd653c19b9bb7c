package pglock

import (
	"context"
	"errors"
	"slices"

	"github.com/swanlake-io/swanlock/db"
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
func (r *registry) mayAsk(me *waiter, rested bool) (ask, first, free bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.queues[me.r.key].waiters[0] != me {
		return false, false, false
	}
	c := r.claims[me.r.key]
	next := me.isNext()
	me.asking = me.given == nil && (rested || c == nil || c.shared || !next)
	return me.asking, true, c == nil && next
}

// retire makes sure that nothing is passed on to me any more, whose ticket is
// gone. It reports false if something was.
func (r *registry) retire(me *waiter) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	me.asking = me.given == nil
	return me.asking
}

func (r *registry) asked(me *waiter) {
	r.mu.Lock()
	me.asking = false
	r.mu.Unlock()
}

// given returns the acquire with which the lock is passed on to me, or nil. When me
// has its answer, taken is to be called.
func (r *registry) given(me *waiter) *op {
	r.mu.Lock()
	defer r.mu.Unlock()
	return me.given
}

func (r *registry) taken(me *waiter) {
	r.mu.Lock()
	me.given = nil
	r.mu.Unlock()
}

// canBePassedLocked reports whether a lock that is held on s can be passed on to
// me. The ticket must be on s, so that it ends with the same statement.
func (me *waiter) canBePassedLocked(s *poolSession) bool {
	return me.s == s && me.isNext()
}

// successors returns an acquire for each waiter to which a release among the ops
// passes its lock on.
func (b batcher) successors(ops []*op) (given []*op) {
	keys := b.s.p.keys
	for _, o := range ops {
		if o.kind != releasing || o.h.Shared || !o.batched() || !b.led.contains(o.h) {
			continue
		}
		if next := keys.passOn(b, o.h.key); next != nil {
			given = append(given, next)
		}
	}
	return given
}

// passesOn reports whether the batch only passes a lock on, so that a shorter statement
// will do.
func (b batch) passesOn(unlocks, locks []*op) bool {
	if len(unlocks) != 1 || len(locks) != 1 || len(b.releases)+len(b.acquires) != 2 {
		return false
	}
	from, to := unlocks[0].h, locks[0].h
	return locks[0].ticket != nil && from.key == to.key && !from.Shared && !to.Shared && (b.join == nil || b.join.key == to.key)
}

// pass returns what the statement is to pass on to o.
func (b batch) pass(o *op) db.PassParams {
	params := db.PassParams{Pid: b.s.pid, Key: int64(o.h.key), Hash: o.ticket.hash, Ticket: o.ticket.number, Fence: o.h.Fence}
	if b.join != nil {
		params.Hint, params.Own = b.join.hint, b.join.own
	}
	return params
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
		hash := lineHash(j.key)
		own := b.led.numbers(hash)
		for _, o := range ops {
			if o.ticket != nil && o.ticket.hash == hash { // It is given up before.
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
func (r *registry) passOn(b batcher, key Key) *op {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.queues[key]
	if q == nil || r.closed {
		return nil
	}
	me := q.waiters[0]
	if me.asking || me.given != nil || !me.canBePassedLocked(b.s) {
		return nil
	}
	h := newHold(me.r).on(b.turn, b.s)
	r.claimLocked(h, b.s)
	me.given = &op{kind: acquiring, ctx: me.ctx, h: h, ticket: me.t, done: make(chan struct{}), end: func() {
		r.mu.Lock()
		me.wakeLocked()
		r.mu.Unlock()
	}}
	return me.given
}

// passed returns the lock if one was passed on to me. It waits for the answer
// until ctx ends or the pool closes.
func (me *waiter) passed() (*PostgresLock, error) {
	keys := me.p.keys
	o := keys.given(me)
	if o == nil {
		return nil, nil
	}
	select {
	case <-o.done:
	case <-me.ctx.Done():
	case <-me.p.life.Done():
	}
	gaveUp := o.state.CompareAndSwap(calling, left) // Then the batcher releases what is granted.
	keys.taken(me)
	if gaveUp {
		return nil, nil
	}
	<-o.done
	if o.err == nil {
		return o.h.beginInPool(), nil
	}
	keys.unclaim(o.h)
	if elsewhere(o.err) || errors.Is(o.err, errSessionGone) {
		return nil, nil
	}
	return nil, o.err
}

// refuse gives up what is passed on to me, which has left.
func (me *waiter) refuse(o *op) {
	if o.state.CompareAndSwap(calling, left) {
		return
	}
	<-o.done
	if o.err == nil {
		o.h.release(context.Background())
	} else {
		me.p.keys.unclaim(o.h)
	}
}
