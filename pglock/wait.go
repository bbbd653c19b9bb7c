package pglock

import (
	"context"
	"errors"
	"slices"
	"time"
)

// A queue is those callers of a pool who wait for one key, in the order of their
// tickets. Only the first looks what is ahead of him in the line of all hosts:
// the others have him ahead. It is guarded by the pool's mutex.
type queue struct{ waiters []*waiter }

// A waiter is one of them.
type waiter struct {
	r     request
	s     *poolSession // where his ticket is
	own   bool         // s is for him alone: he waits there as well
	t     *ticket
	woken chan struct{}
}

// wake tells the first that something has happened.
func (q *queue) wake() {
	select {
	case q.waiters[0].woken <- struct{}{}:
	default:
	}
}

// awaited says whether callers of this pool wait for key.
func (p *Pool) awaited(key Key) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queues[key] != nil
}

// wait waits in line, after a try in vain perhaps, until the lock is granted or
// ctx ends.
func (p *Pool) wait(ctx context.Context, r request, tried bool) (*PostgresLock, error) {
	join := func() (*waiter, error) { return p.join(ctx, r, tried) }
	me, err := again(join)
	if err != nil {
		return nil, err
	}
	defer func() { p.leave(me) }()
	for pause := newPause(); ; {
		switch {
		case ctx.Err() != nil:
			return nil, notAcquired(ctx)
		case p.life.Err() != nil:
			return nil, errPoolClosed
		case !me.t.has(): // its session is gone, and the place with it
			next, err := again(join)
			if err != nil {
				return nil, err
			}
			p.leave(me)
			me = next
		}
		idle := time.Duration(-1)
		if p.first(me) {
			l, waited, err := p.step(ctx, me)
			switch {
			case l != nil:
				return l, nil
			case err != nil && ctx.Err() != nil:
				return nil, notAcquired(ctx)
			case err != nil && !elsewhere(err): // else it was granted too late for its TTL
				return nil, err
			}
			if idle = pause.next(); waited {
				idle = 0
			}
		}
		me.sleep(ctx, p.life, idle)
	}
}

// sleep lasts until the waiter is woken, or for d, if that is not negative.
func (me *waiter) sleep(ctx, life context.Context, d time.Duration) {
	if d == 0 {
		return
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
	case <-ctx.Done():
	case <-life.Done():
	}
}

// join takes a ticket, and with it the place in the pool's own queue.
func (p *Pool) join(ctx context.Context, r request, tried bool) (*waiter, error) {
	me := &waiter{r: r, woken: make(chan struct{}, 1)}
	if err := p.seat(me); err != nil {
		return nil, err
	}
	s := me.s
	err := s.opened(ctx)
	if err == nil {
		for pause := newPause(); me.t == nil && err == nil; {
			err = s.solo(func(ctx context.Context) (err error) {
				if me.t, err = s.w.takeTicket(ctx, s.led, r.key, &p.crowd); me.t == nil {
					return err
				}
				if me.t.pid != s.pid {
					s.w.drop(ctx, me.t)
					s.stray(ctx, me.t.pid)
					return ErrPooler
				}
				p.crowd.joined(r.key, me.t, tried)
				p.enqueue(me)
				return nil
			})
			if me.t == nil && err == nil { // too many came at once
				err = pause.wait(ctx)
			}
		}
	}
	if err != nil {
		p.mu.Lock()
		p.unseat(me)
		p.mu.Unlock()
		return nil, err
	}
	return me, nil
}

// seat finds a session for the ticket of me. If nobody else of the pool waits for
// the key, it is one to wait on as well, if there is one that has nothing else,
// another to end the wait with, and a connection for who has the lock: so he needs
// no statement to drop his ticket.
func (p *Pool) seat(me *waiter) (err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return errPoolClosed
	}
	lease := leaseOf(me.r.TTL)
	if p.queues[me.r.key] == nil && !p.seated[me.r.key] && p.mayWait() && p.locks < p.room {
		s := p.vacant(lease, nil)
		room := p.spare(1) || slices.ContainsFunc(p.sessions, func(other *poolSession) bool { return other != s && other.isOpen() && other.has(lease) })
		if s != nil && s.isOpen() && p.beside(s) != nil && room {
			p.occupy(s)
			p.reserve(s)
			p.seated[me.r.key] = true
			me.s, me.own = s, true
			return nil
		}
	}
	me.s, err = p.choose(lease)
	return err
}

// unseat gives back what seat took. p.mu is held.
func (p *Pool) unseat(me *waiter) {
	p.unreserve(me.s)
	if me.own {
		delete(p.seated, me.r.key)
		p.desert(me.s)
	}
}

// enqueue puts me where the ticket says: those taken on another session may come
// a little late.
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

// first says whether me is the first of this pool's.
func (p *Pool) first(me *waiter) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queues[me.r.key].waiters[0] == me
}

// leave gives the place up, without waiting for the server.
func (p *Pool) leave(me *waiter) {
	has := me.t.has()
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
			next.ahead.Store(0) // he was the first of all, so the next is
		}
		q.wake()
	}
	switch {
	case p.over:
	case !has:
		p.unseat(me)
	default:
		p.work.Go(func() {
			me.s.solo(func(ctx context.Context) error { return me.s.w.drop(ctx, me.t) })
			p.mu.Lock()
			p.unseat(me)
			p.mu.Unlock()
		})
	}
}

// step waits for the turn of me, the pool's first, for a slice and on a session
// for nothing else; if there is none to be had, it only looks.
func (p *Pool) step(ctx context.Context, me *waiter) (l *PostgresLock, waited bool, err error) {
	s := p.waitSession(me)
	if s == nil {
		return p.attempt(ctx, me, me.s, 0)
	}
	ended := make(chan struct{})
	if !p.spawn(func() {
		defer close(ended)
		l, waited, err = p.attempt(ctx, me, s, p.slice(ctx, s))
		if !me.own {
			p.mu.Lock()
			p.desert(s)
			p.mu.Unlock()
		}
	}) {
		return nil, false, errPoolClosed
	}
	select {
	case <-ended:
	case <-ctx.Done():
		p.cancel(s, ended)
	case <-p.life.Done():
		p.cancel(s, ended)
	}
	return l, waited, err
}

// cancel ends the wait on s, with another session, so that who has left is not
// in the server's queue any more. Without another the wait ends by itself, soon.
func (p *Pool) cancel(s *poolSession, ended <-chan struct{}) {
	for pause := newPause(); ; {
		p.mu.Lock()
		other := p.beside(s)
		p.mu.Unlock()
		if other != nil {
			other.solo(func(ctx context.Context) error { return other.w.cancelWait(ctx, other.led, s.pid) })
		}
		select {
		case <-ended:
			return
		case <-time.After(pause.next()): // it was not waiting yet
		}
	}
}

// mayWait says whether one more session may wait. p.mu is held.
func (p *Pool) mayWait() bool { return !p.polling && !p.closed && p.waiting < p.maxWaiters }

// beside is an open session, not s, on which nobody waits. p.mu is held.
func (p *Pool) beside(s *poolSession) *poolSession {
	for _, other := range p.sessions {
		if other != s && !other.waits && other.isOpen() {
			return other
		}
	}
	return nil
}

// vacant is a session, not but, that has nothing, or will be when it is open.
// p.mu is held.
func (p *Pool) vacant(lease time.Duration, but *poolSession) (s *poolSession) {
	for _, other := range p.sessions {
		if other.locks == 0 && !other.waits && other.lease == lease && other != but {
			if s = other; s.isOpen() {
				break
			}
		}
	}
	return s
}

// occupy keeps s for one waiter; desert ends that. p.mu is held.
func (p *Pool) occupy(s *poolSession) {
	s.waits = true
	p.waiting++
}

func (p *Pool) desert(s *poolSession) {
	s.waits = false
	p.waiting--
}

// waitSession is an empty session to wait on, if there may be one more.
func (p *Pool) waitSession(me *waiter) *poolSession {
	if me.own {
		return me.s
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mayWait() {
		return nil
	}
	lease := leaseOf(me.r.TTL)
	s := p.vacant(lease, me.s)
	if s == nil {
		if len(p.sessions) >= maxSessions/2 || !p.spare(1) { // one is left for who has the lock
			return nil
		}
		s = p.newSession(lease)
	}
	if !s.isOpen() { // he only looks meanwhile
		return nil
	}
	p.occupy(s)
	return s
}

// slice is how long a statement may wait on s.
func (p *Pool) slice(ctx context.Context, s *poolSession) time.Duration {
	d := slice
	if s.lease > 0 {
		d = min(d, s.lease/3)
	}
	return before(ctx, d)
}

// attempt looks on s whether it is the turn of me, and waits for it for a slice.
func (p *Pool) attempt(ctx context.Context, me *waiter, s *poolSession, slice time.Duration) (l *PostgresLock, waited bool, err error) {
	h := newHold(me.r).on(s.w, s.led)
	granted := false
	err = s.solo(func(ctx context.Context) error {
		granted, waited, err = s.turn(ctx, h, me, slice)
		return err
	})
	switch {
	case errors.Is(err, errSessionGone):
		return nil, false, nil
	case err != nil || !granted:
		return nil, waited, err
	}
	l, err = h.given(ctx, me.r)
	return l, waited, err
}

// turn is what attempt does while it leads.
func (s *poolSession) turn(ctx context.Context, h *hold, me *waiter, slice time.Duration) (granted, waited bool, err error) {
	has := s.led.holds(h.id.key) != nil
	if has || !h.info.Shared && s.led.reads(h.id.key, h) { // it would be granted to the session once more
		return false, false, nil
	}
	if awaited, err := s.awaited(ctx, h, int64(me.t.number)); err != nil || awaited {
		return false, false, err
	}
	h.at = s
	if granted, waited, err = s.w.turn(ctx, h, me.t, slice); err != nil || !granted {
		return false, waited, err
	}
	s.p.mu.Lock()
	s.p.reserve(s)
	s.p.claimed(h, s)
	s.p.mu.Unlock()
	if err := s.w.entered(ctx, h, me.r); err != nil {
		s.p.unclaim(h)
		return false, waited, err
	}
	return true, waited, nil
}
