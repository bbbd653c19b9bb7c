package pglock

import (
	"context"
	"errors"
	"time"
)

// wait waits in line until the lock is granted or ctx ends. tried says that a
// try has failed before.
func (p *Pool) wait(ctx context.Context, r request, tried bool, s *spell) (*PostgresLock, error) {
	me, l, err := p.join(ctx, r, tried)
	if err != nil {
		return nil, err
	}
	s.ended()
	if l != nil {
		return l, nil
	}
	defer func() { me.leave() }()
	rested := false // It has not been woken for long.
	looked := false // It has looked because the lock seemed to be free.
	for pace := newRhythm(); ; {
		live := me.t.live() // This must be looked at first: the ticket ends when the lock is passed on.
		l, err := me.passed()
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
			if !p.keys.retire(me) {
				continue
			}
			next, l, err := p.join(ctx, r, tried)
			if err != nil || l != nil {
				return l, err
			}
			me.leave()
			me = next
		}
		idle := time.Duration(-1)
		if ask, first, free := p.keys.mayAsk(me, rested); !ask && first {
			idle = maxRest
		} else if ask {
			// The lock that it gets so is on the session of its ticket, and of those
			// behind, so that it can be passed on to them.
			looked = free && !looked
			l, adv, err := me.step(looked || pace.looks || rested)
			p.keys.asked(me)
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
		rested = me.sleep(idle) && idle == maxRest
	}
}

// join takes a ticket, and a place in the pool's queue, or gets the lock at once. If
// a session turns out to be dead, it uses another.
func (p *Pool) join(ctx context.Context, r request, tried bool) (me *waiter, l *PostgresLock, err error) {
	for range maxSessions {
		me = &waiter{p: p, r: r, ctx: ctx, tried: tried, woken: make(chan struct{}, 1)}
		if l, err = me.join(); !errors.Is(err, errSessionGone) {
			break
		}
	}
	return me, l, err
}
