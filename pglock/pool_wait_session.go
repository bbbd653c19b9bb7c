package pglock

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// cancel ends the wait on s through another session, so that a caller that has
// left does not stay in the server's queue. It tries for grace at most. If
// there is no other session, the wait ends by itself, after maxServerWait at
// the latest.
func (p *Pool) cancel(s *poolSession, ended <-chan struct{}) {
	soon, stop := context.WithTimeout(context.Background(), grace)
	defer stop()
	for pause := newPause(); ; {
		p.mu.Lock()
		other := p.openSessionOtherThanLocked(s)
		p.mu.Unlock()
		if other != nil {
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

// mayWaitLocked reports whether one more session may wait in the server.
func (p *Pool) mayWaitLocked() bool {
	return !p.polling && !p.closed && p.waitingSessions < p.maxWaiters
}

// openSessionOtherThanLocked returns an open session other than s that does not
// wait in the server, or nil.
func (p *Pool) openSessionOtherThanLocked(s *poolSession) *poolSession {
	for _, other := range p.sessions {
		if other != s && !other.waits && other.isOpen() && !other.silent() {
			return other
		}
	}
	return nil
}

// emptySessionLocked returns a session of that lease, other than except, that
// has no locks and no tickets, or nil. It prefers one that is open.
func (p *Pool) emptySessionLocked(lease time.Duration, except *poolSession) (s *poolSession) {
	for _, other := range p.sessions {
		if other.locks == 0 && !other.waits && other.lease == lease && other != except && !other.silent() {
			if s = other; s.isOpen() {
				break
			}
		}
	}
	return s
}

// occupyLocked reserves s for the wait of one waiter; vacateLocked ends that.
func (p *Pool) occupyLocked(s *poolSession) {
	s.waits = true
	p.waitingSessions++
}

func (p *Pool) vacateLocked(s *poolSession) {
	s.waits = false
	p.waitingSessions--
}

// sessionToWaitOn returns a session for the wait of me, or nil if no more may
// wait.
func (p *Pool) sessionToWaitOn(me *waiter) *poolSession {
	if me.own {
		return me.s
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.mayWaitLocked() {
		return nil
	}
	lease := leaseOf(me.r.TTL)
	s := p.emptySessionLocked(lease, me.s)
	if s == nil {
		// A connection is left for the holder.
		if len(p.sessions) >= maxSessions/2 || !p.spare(1) || !p.mayOpenLocked() {
			return nil
		}
		s = p.newSessionLocked(lease)
	}
	if !s.isOpen() { // The waiter only looks meanwhile.
		return nil
	}
	p.occupyLocked(s)
	return s
}

// serverWait returns how long a statement may wait in the server on s.
func (p *Pool) serverWait(ctx context.Context, s *poolSession) time.Duration {
	d := maxWait(s.led.deadlock)
	if kept := time.Duration(s.serverLease.Load()); kept > 0 {
		d = min(d, kept/3)
	}
	return before(ctx, d)
}
