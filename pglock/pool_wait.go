package pglock

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"time"
)

// A queue has the callers of a pool that wait for one key, in the order of
// their tickets. Only the first looks what is ahead of it in the line of all
// hosts, since the first is ahead of the others. A queue is guarded by the
// pool's mutex, and never empty.
type queue struct{ waiters []*waiter }

// A waiter is a caller in a queue.
type waiter struct {
	r     request
	ctx   context.Context
	s     *poolSession // the session that has the ticket
	own   bool         // s is for this waiter alone, which also waits on it
	t     *ticket
	woken chan struct{}

	// Guarded by Pool.mu.
	asking bool // it asks the server for the lock
	given  *op  // the acquire with which a holder of this pool passes the lock on; nil: none
}

// wakeLocked makes the first waiter look again.
func (q *queue) wakeLocked() {
	q.waiters[0].wakeLocked()
}

func (me *waiter) wakeLocked() {
	select {
	case me.woken <- struct{}{}:
	default:
	}
}

// hasWaiters reports whether callers of this pool wait for key.
func (p *Pool) hasWaiters(key Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queues[key] != nil
}

// wait waits in line until the lock is granted or ctx ends. tried says that a
// try has failed before.
func (p *Pool) wait(ctx context.Context, r request, tried bool, s *spell) (*PostgresLock, error) {
	me, err := p.join(ctx, r, tried)
	if err != nil {
		return nil, err
	}
	s.ended()
	defer func() { p.leave(me) }()
	rested := false // It has not been woken for long.
	looked := false // It has looked because the lock seemed to be free.
	for pace := newRhythm(); ; {
		live := me.t.live() // This must be looked at first: the ticket ends when the lock is passed on.
		l, err := p.passed(ctx, me)
		switch {
		case l != nil:
			return l, nil
		case err != nil:
			return nil, err
		case ctx.Err() != nil:
			return nil, notAcquired(ctx)
		case p.life.Err() != nil:
			return nil, errPoolClosed
		case !live: // The place is lost, perhaps with its session.
			if !p.retire(me) {
				continue
			}
			next, err := p.join(ctx, r, tried)
			if err != nil {
				return nil, err
			}
			p.leave(me)
			me = next
		}
		idle := time.Duration(-1)
		if ask, first, free := p.mayAsk(me, rested); !ask && first {
			idle = maxRest
		} else if ask {
			// The lock that it gets so is on the session of its ticket, and of those
			// behind, so that it can be passed on to them.
			looked = free && !looked
			l, adv, err := p.step(ctx, me, looked || pace.looks || rested)
			p.asked(me)
			switch {
			case l != nil:
				return l, nil
			case err != nil && ctx.Err() != nil:
				return nil, notAcquired(ctx)
			case err != nil && !elsewhere(err): // Otherwise it was granted too late for its TTL.
				return nil, err
			}
			if idle = 0; !looked {
				idle = pace.next(me.t, adv, maxRest)
			}
		}
		rested = me.sleep(ctx, p.life, idle) && idle == maxRest
	}
}

// sleep returns when the waiter is woken or a context ends, or after d, if d is
// not negative. It reports whether d has passed.
func (me *waiter) sleep(ctx, life context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	var after <-chan time.Time
	if d > 0 {
		timer := time.NewTimer(d)
		defer timer.Stop()
		after = timer.C
	}
	select {
	case <-me.woken:
	case <-after:
		return true
	case <-ctx.Done():
	case <-life.Done():
	}
	return false
}

// join takes a ticket, and a place in the pool's queue. If a session turns out
// to be dead, it uses another.
func (p *Pool) join(ctx context.Context, r request, tried bool) (me *waiter, err error) {
	for range maxSessions {
		if me, err = p.joinOnce(ctx, r, tried); !errors.Is(err, errSessionGone) {
			break
		}
	}
	return me, err
}

func (p *Pool) joinOnce(ctx context.Context, r request, tried bool) (*waiter, error) {
	me := &waiter{r: r, ctx: ctx, woken: make(chan struct{}, 1)}
	if err := p.reserveForWait(me); err != nil {
		return nil, err
	}
	s := me.s
	err := s.opened(ctx)
	joined := false
	for pause := newPause(); err == nil && !joined; {
		var state atomic.Int32 // calling, returned or left
		o := &op{kind: running, join: &join{key: r.key}}
		o.f = func(_ context.Context, tn turn) error {
			t, err := takeTicket(ctx, tn, r.key, &p.hint, o.join.taken)
			if t == nil {
				return err
			}
			if t.pid != s.pid {
				t.drop(tn)
				batcher{turn: tn, s: s}.endBehindPooler(t.pid)
				return ErrPooler
			}
			if !state.CompareAndSwap(calling, returned) { // The caller has left.
				return t.drop(tn)
			}
			me.t = t
			p.hint.joined(r.key, t, tried)
			p.enqueue(me)
			return nil
		}
		err = s.do(ctx, o)
		if errors.Is(err, errLeft) && !state.CompareAndSwap(calling, left) {
			err = nil // The ticket was taken before the caller could leave.
		}
		if joined = err == nil && state.Load() == returned; !joined && err == nil {
			err = pause.wait(ctx) // Too many joined at the same time.
		}
	}
	if err != nil {
		p.mu.Lock()
		p.releaseFromWaitLocked(me)
		p.mu.Unlock()
		return nil, unanswered(ctx, err)
	}
	return me, nil
}

// reserveForWait finds a session for the ticket of me. A caller that is the pool's
// first for a key gets an empty session to itself, if another session is left to
// cancel its wait and a connection is left for the holder. Its ticket then needs no
// statement to be dropped.
func (p *Pool) reserveForWait(me *waiter) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errPoolClosed
	}
	lease := leaseOf(me.r.TTL)
	if s := p.passesLocked(me.r.key); s != nil && s.isOpen() && s.fitsLocked(lease) && p.locks < p.maxLocks {
		me.s = s
		p.reserveLocked(s)
		return nil
	}
	if p.queues[me.r.key] == nil && !p.reserved[me.r.key] && p.mayWaitLocked() && p.locks < p.maxLocks {
		s := p.emptySessionLocked(lease, nil)
		room := p.spare(1) || slices.ContainsFunc(p.sessions, func(other *poolSession) bool { return other != s && other.isOpen() && other.fitsLocked(lease) })
		if s != nil && s.isOpen() && p.openSessionOtherThanLocked(s) != nil && room {
			p.occupyLocked(s)
			p.reserveLocked(s)
			p.reserved[me.r.key] = true
			me.s, me.own = s, true
			return nil
		}
	}
	me.s, err = p.chooseLocked(lease)
	return err
}

// passesLocked returns the session on which the next waiter for key should have its
// ticket, so that the lock can be passed on to it, or nil. That is the last waiter's,
// which will hold the lock when the next one is first; those of the holders before
// that need not be alike, and would stay so if each waiter took the holder's.
func (p *Pool) passesLocked(key Key) *poolSession {
	if q := p.queues[key]; q != nil {
		if last := q.waiters[len(q.waiters)-1]; !last.own && !last.r.Shared {
			return last.s
		}
	}
	if c := p.claims[key]; c != nil && !c.shared {
		return c.at
	}
	return nil
}

// releaseFromWaitLocked gives back what reserveForWait took.
func (p *Pool) releaseFromWaitLocked(me *waiter) {
	p.unreserveLocked(me.s)
	if me.own {
		delete(p.reserved, me.r.key)
		p.vacateLocked(me.s)
	}
}

// enqueue puts me into the queue by the number of its ticket. The order of the
// calls may be another, if the tickets were taken on different sessions.
func (p *Pool) enqueue(me *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[me.r.key]
	if q == nil {
		q = &queue{}
		p.queues[me.r.key] = q
	}
	i, _ := slices.BinarySearchFunc(q.waiters, me.t.number, func(w *waiter, n int32) int { return int(w.t.number) - int(n) })
	q.waiters = slices.Insert(q.waiters, i, me)
}

// leave gives up the place of me, without waiting for the server.
func (p *Pool) leave(me *waiter) {
	live := me.t.live()
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.queues[me.r.key]
	i := slices.Index(q.waiters, me)
	if i < 0 {
		return
	}
	q.waiters = slices.Delete(q.waiters, i, i+1)
	if len(q.waiters) == 0 {
		delete(p.queues, me.r.key)
	} else if i == 0 {
		if next := q.waiters[0].t; me.t.ahead.Load() == 0 && next.ahead.Load() == me.t.number {
			next.ahead.Store(0) // The one that leaves was first in line, so the next is now.
		}
		q.wakeLocked()
	}
	if o := me.given; o != nil && !p.stopped {
		p.work.Go(func() { p.refuse(o) })
	}
	switch {
	case p.stopped:
	case !live:
		p.releaseFromWaitLocked(me)
	default:
		p.work.Go(func() {
			me.s.solo(context.Background(), func(_ context.Context, tn turn) error { return me.t.drop(tn) })
			p.mu.Lock()
			p.releaseFromWaitLocked(me)
			p.mu.Unlock()
		})
	}
}

// step waits once for me, which is first in its queue, to be first in line and
// to get the lock. It waits on a session that is used for nothing else
// meanwhile. If there is no such session, or if looks is true, it only looks.
func (p *Pool) step(ctx context.Context, me *waiter, looks bool) (*PostgresLock, advanced, error) {
	var s *poolSession
	if !looks {
		s = p.sessionToWaitOn(me)
	}
	if s == nil {
		return p.attempt(ctx, me, me.s, 0)
	}
	ended := make(chan struct{})
	defer close(ended)
	for _, end := range []context.Context{ctx, p.life} {
		defer context.AfterFunc(end, func() { p.cancel(s, ended) })()
	}
	return p.attempt(ctx, me, s, p.serverWait(ctx, s))
}

// An attempted is the result of an attempt.
type attempted struct {
	state atomic.Int32 // calling, returned or left
	l     *PostgresLock
	advanced
}

// attempt asks on s whether me is first in line, and takes the lock then. It
// waits for that for up to wait.
func (p *Pool) attempt(ctx context.Context, me *waiter, s *poolSession, wait time.Duration) (*PostgresLock, advanced, error) {
	h := newHold(me.r).on(turn{s.a, s.led}, s)
	var a attempted
	o := &op{kind: running}
	if wait > 0 && !me.own {
		o.end = func() {
			p.mu.Lock()
			p.vacateLocked(s)
			p.mu.Unlock()
		}
	}
	o.f = func(_ context.Context, tn turn) error {
		adv, err := batcher{turn: tn, s: s}.advanceFor(ctx, h, me, wait)
		a.advanced = adv
		if err == nil && adv.granted {
			a.l = h.beginInPool()
			if !a.state.CompareAndSwap(calling, returned) {
				a.l.dropped.Stop()
				release(tn, h)
			}
		}
		return err
	}
	err := s.do(ctx, o)
	switch {
	case errors.Is(err, errLeft) && a.state.CompareAndSwap(calling, left):
		return nil, advanced{}, unanswered(ctx, err)
	case a.state.Load() == returned:
		return a.l, advanced{waited: true}, nil
	case errors.Is(err, errSessionGone):
		return nil, advanced{}, nil
	case err != nil && !errors.Is(err, errLeft):
		return nil, a.advanced, err
	}
	return nil, a.advanced, nil
}

// advanceFor is the part of attempt that has the turn.
func (b batcher) advanceFor(ctx context.Context, h *hold, me *waiter, wait time.Duration) (advanced, error) {
	switch {
	case b.led.held(h.key) != nil, !h.Shared && b.led.readersOf(h.key) > 0:
		return advanced{}, nil // The server would grant it to this session once more.
	case h.Shared && b.led.readersOf(h.key) > 0:
		return b.joinReaders(ctx, h, me)
	}
	adv, err := me.t.advance(context.WithoutCancel(ctx), b.turn, h, wait)
	if err != nil || !adv.granted {
		return adv, err
	}
	p := b.s.p
	p.claimMore(h, b.s)
	if err := complete(ctx, b.turn, h); err != nil {
		p.unclaim(h)
		return advanced{waited: adv.waited}, err
	}
	return adv, nil
}

// joinReaders takes the lock for a waiter on a session that has it for other
// readers.
func (b batcher) joinReaders(ctx context.Context, h *hold, me *waiter) (advanced, error) {
	o := &op{kind: acquiring, ctx: ctx, h: h, below: me.t.number}
	b.s.p.claimMore(h, b.s)
	b.send(b.readers(nil, []*op{o}))
	if o.err != nil {
		b.s.p.unclaim(h)
		if elsewhere(o.err) {
			o.err = nil
		}
		return advanced{}, o.err
	}
	return advanced{granted: true}, nil
}
