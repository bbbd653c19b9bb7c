package pglock

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// join takes a ticket, and a place in the pool's queue. Where one statement can take
// the ticket and wait for the lock, it may return the lock instead.
func (me *waiter) join() (*PostgresLock, error) {
	if err := me.p.keys.seat(me); err != nil {
		return nil, err
	}
	l, err := me.takePlace()
	if err != nil || l != nil {
		me.p.keys.unseat(me)
	}
	return l, unanswered(me.ctx, err)
}

// takePlace is the part of join that has a session.
func (me *waiter) takePlace() (*PostgresLock, error) {
	if err := me.s.opened(me.ctx); err != nil {
		return nil, err
	}
	if me.own {
		l, _, err := me.step(false)
		switch {
		case l != nil:
			return l, nil
		case err != nil && me.ctx.Err() != nil:
			return nil, notAcquired(me.ctx)
		case err != nil && !elsewhere(err): // Otherwise it was granted too late for its TTL.
			return nil, err
		}
	}
	for pause := newPause(); me.t == nil; {
		joined, err := me.takeTicket()
		if err == nil && !joined {
			err = pause.wait(me.ctx) // Too many joined at the same time.
		}
		if err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// takeTicket reports whether me has a ticket now.
func (me *waiter) takeTicket() (bool, error) {
	s := me.s
	var state atomic.Int32 // calling, returned or left
	o := &op{kind: running, join: &join{key: me.r.key}}
	o.f = func(_ context.Context, tn turn) error {
		t, err := takeTicket(me.ctx, tn, me.r.key, &me.p.hint, o.join.taken, nil)
		if t == nil {
			return err
		}
		if t.pid != s.pid {
			t.drop(tn)
			batcher{turn: tn, s: s}.endBehindPooler(t.pid)
			return ErrPooler
		}
		me.p.hint.joined(me.r.key, t, me.tried)
		if !me.enqueue(t, &state) {
			return t.drop(tn)
		}
		return nil
	}
	err := s.do(me.ctx, o)
	if errors.Is(err, errLeft) {
		state.CompareAndSwap(calling, left)
	}
	if state.Load() == returned { // Also if the caller was about to leave.
		return true, nil
	}
	return false, err
}

// enqueue enters me, with the ticket t, into the pool's queue. It reports whether it
// has done so before the caller left, which state says.
func (me *waiter) enqueue(t *ticket, state *atomic.Int32) bool {
	me.t = t
	me.p.keys.enqueue(me)
	if state.CompareAndSwap(calling, returned) {
		return true
	}
	me.dequeue()
	return false
}

// dequeue takes me out of the pool's queue.
func (me *waiter) dequeue() {
	if o := me.p.keys.dequeue(me); o != nil {
		me.p.spawn(func() { me.refuse(o) })
	}
}

// leave gives up the place of me, without waiting for the server.
func (me *waiter) leave() {
	p := me.p
	live := me.t.live()
	me.dequeue()
	if !live {
		p.keys.unseat(me)
		return
	}
	p.spawn(func() {
		me.s.solo(context.Background(), func(_ context.Context, tn turn) error { return me.t.drop(tn) })
		p.keys.unseat(me)
	})
}

// sleep returns when the waiter is woken, or gives up, or the pool closes, or
// after d, if d is not negative. It reports whether d has passed.
func (me *waiter) sleep(d time.Duration) bool {
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
	case <-me.ctx.Done():
	case <-me.p.life.Done():
	}
	return false
}

// step waits once for me, which is first in its queue, to be first in line and
// to get the lock. It waits on a session that is used for nothing else
// meanwhile. If there is no such session, or if looks is true, it only looks.
func (me *waiter) step(looks bool) (*PostgresLock, advanced, error) {
	var s *poolSession
	switch {
	case looks, serverWait(me.ctx, me.s.led.deadlock) == 0:
	case me.own:
		s = me.s
	default:
		s = me.p.sessions.toWaitOn(leaseOf(me.r.TTL), me.s)
	}
	if s == nil {
		return me.attempt(me.s, 0)
	}
	ended := make(chan struct{})
	defer close(ended)
	for _, end := range []context.Context{me.ctx, me.p.life} {
		defer context.AfterFunc(end, func() { me.cancel(s, ended) })()
	}
	return me.attempt(s, me.serverWait(s))
}

// serverWait returns how long a statement may wait in the server on s.
func (me *waiter) serverWait(s *poolSession) time.Duration {
	d := serverWait(me.ctx, s.led.deadlock)
	if kept := s.pulse.kept(); kept > 0 && d > 0 {
		d = max(min(d, kept/3), time.Millisecond)
	}
	return d
}

// cancel ends the wait on s through another session, so that a caller that has
// left does not stay in the server's queue. It tries for grace at most. If
// there is no other session, the wait ends by itself, after maxServerWait at
// the latest.
func (me *waiter) cancel(s *poolSession, ended <-chan struct{}) {
	soon, stop := context.WithTimeout(context.Background(), grace)
	defer stop()
	for pause := newPause(); ; {
		if other := me.p.sessions.other(s); other != nil {
			other.solo(soon, func(ctx context.Context, tn turn) error {
				_, err := look(ctx, tn, (*db.Queries).CancelWait, s.pid)
				return err
			})
		}
		select {
		case <-ended:
			return
		case <-soon.Done():
			return
		case <-time.After(pause.next()): // The wait had not begun when it was cancelled.
		}
	}
}

// An attempted is the result of an attempt.
type attempted struct {
	state atomic.Int32 // calling, returned or left
	l     *PostgresLock
	advanced
}

// attempt asks on s whether me is first in line, and takes the lock then. It
// waits for that for up to wait. If me has no ticket yet, the statement takes one, if
// it can.
func (me *waiter) attempt(s *poolSession, wait time.Duration) (*PostgresLock, advanced, error) {
	h := newHold(me.r).on(turn{s.a, s.led}, s)
	var a attempted
	o := &op{kind: running}
	if wait > 0 && !me.own {
		o.end = func() { me.p.sessions.vacate(s) }
	}
	o.f = func(_ context.Context, tn turn) error {
		t, joins := me.t, me.t == nil
		if joins {
			if t = nextTicket(tn, me.r.key, &me.p.hint); t == nil {
				return nil
			}
		}
		adv, err := me.advance(batcher{turn: tn, s: s}, t, h, wait)
		a.advanced = adv
		switch {
		case err == nil && adv.granted:
			a.l = h.beginInPool()
			if !a.state.CompareAndSwap(calling, returned) {
				a.l.dropped.Stop()
				release(tn, h)
			}
		case err == nil && joins && t.live() && me.enqueue(t, &a.state):
			return nil
		}
		if joins {
			t.drop(tn)
		}
		return err
	}
	err := s.do(me.ctx, o)
	switch {
	case errors.Is(err, errLeft) && a.state.CompareAndSwap(calling, left):
		return nil, advanced{}, unanswered(me.ctx, err)
	case a.state.Load() == returned:
		return a.l, advanced{waited: true}, nil
	case errors.Is(err, errSessionGone):
		return nil, advanced{}, nil
	case err != nil && !errors.Is(err, errLeft):
		return nil, a.advanced, err
	}
	return nil, a.advanced, nil
}

// advance is the part of attempt that has the turn.
func (me *waiter) advance(b batcher, t *ticket, h *hold, wait time.Duration) (advanced, error) {
	switch {
	case b.audit && b.unwritable() != nil:
		return advanced{}, nil // It looks again later, rather than let the session wait for its row.
	case b.led.held(h.key) != nil, !h.Shared && b.led.readersOf(h.key) > 0:
		return advanced{}, nil // The server would grant it to this session once more.
	case h.Shared && b.led.readersOf(h.key) > 0:
		return me.joinReaders(b, h)
	}
	adv, err := t.advance(context.WithoutCancel(me.ctx), b.turn, h, wait)
	if err != nil || !adv.granted {
		return adv, err
	}
	if err := me.p.keys.claimOn(h, b.s); err != nil {
		unlockBare(b.turn, h)
		return advanced{}, err
	}
	if err := complete(me.ctx, b.turn, h); err != nil {
		me.p.keys.unclaim(h)
		return advanced{waited: adv.waited}, err
	}
	return adv, nil
}

// joinReaders takes the lock on a session that has it for other readers.
func (me *waiter) joinReaders(b batcher, h *hold) (advanced, error) {
	o := &op{kind: acquiring, ctx: me.ctx, h: h, below: me.t.number}
	if err := me.p.keys.claimOn(h, b.s); err != nil {
		return advanced{}, err
	}
	b.acquire(o)
	if o.err != nil {
		me.p.keys.unclaim(h)
		if elsewhere(o.err) {
			o.err = nil
		}
		return advanced{}, o.err
	}
	return advanced{granted: true}, nil
}
