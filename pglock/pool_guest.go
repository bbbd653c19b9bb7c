package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// This file keeps a pool from taking too many connections of the *sql.DB, which
// the application needs for itself.

// scarceFor is how long a pool takes no more connections after one came late.
const scarceFor = time.Minute

// limitLocked returns how many sessions the pool may have.
func (p *Pool) limitLocked() int {
	limit := maxSessions
	if p.maxSessions > 0 {
		limit = min(limit, p.maxSessions)
	} else if open := p.db.Stats().MaxOpenConnections; open > 0 {
		limit = min(limit, max(open/2, 1))
	}
	if time.Now().Before(p.scarceUntil) {
		limit = min(limit, p.scarceLimit)
	}
	return limit
}

// mayOpenLocked reports whether the pool may open one more session.
func (p *Pool) mayOpenLocked() bool {
	return len(p.sessions) == 0 || len(p.sessions) < p.limitLocked() && p.spare(0)
}

// shareLocked returns the session with the fewest locks, if one has room, for a
// lock that would have a session of its own if there were connections enough.
// The session's lease becomes the lock's, if that is shorter.
func (p *Pool) shareLocked(lease time.Duration) (best *poolSession) {
	for _, s := range p.sessions {
		if s.gone || s.waits || s.locks >= locksPerSession || s.silent() {
			continue
		}
		if best == nil || s.locks < best.locks {
			best = s
		}
	}
	if best != nil && lease > 0 && (best.lease == 0 || best.lease > lease) {
		best.lease = lease
	}
	if best != nil && !p.warnedScarce {
		p.warnedScarce = true
		p.log.Warn("pglock: too few connections for a session for each range of TTLs: locks share the shortest lease of their session: raise SetMaxOpenConns, or WithMaxSessions",
			"sessions", len(p.sessions), "limit", p.limitLocked())
	}
	return best
}

// leaseNow returns the lease that the session is to have.
func (s *poolSession) leaseNow() time.Duration {
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return s.lease
}

// shortenLease gives the session the lease that its newest lock needs.
func (b batcher) shortenLease() error {
	s := b.s
	lease := s.leaseNow()
	if kept := time.Duration(s.serverLease.Load()); lease == 0 || kept > 0 && kept <= lease {
		return nil
	}
	sent := time.Now()
	row, err := ask(context.Background(), b.turn, (*db.Queries).PoolOpen, timeouts{}.of(lease).idleInTransaction)
	if err == nil && row.Pid != s.pid {
		err = ErrPooler
	}
	if err != nil {
		return err
	}
	b.warnLeaseless(s.savedSettings)
	s.kept(lease)
	b.led.own(s, lease, sent)
	s.heartbeatTimer.Reset(s.every())
	return nil
}

// late notes that a connection of the *sql.DB came late, or not at all.
func (p *Pool) late() {
	inUse := p.db.Stats().InUse // as many as there are, since one more is not to be had
	p.mu.Lock()
	p.scarceUntil, p.scarceLimit = time.Now().Add(scarceFor), max(inUse/2, 1)
	p.mu.Unlock()
}

// others reports whether the pool has an open session beside s.
func (p *Pool) others(s *poolSession) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, other := range p.sessions {
		if other != s && other.isOpen() {
			return true
		}
	}
	return false
}

// awaitOpening waits until no other session is being opened, if nobody knows how many
// connections there are: one that is open tells the next that it need not wait long.
// It does not wait for one that takes long itself. done is to be called afterwards.
func (p *Pool) awaitOpening(ctx context.Context) (done func()) {
	if p.db.Stats().MaxOpenConnections == 0 {
		timer := time.NewTimer(connecting / 10)
		defer timer.Stop()
		select {
		case p.opening <- struct{}{}:
			return func() { <-p.opening }
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return func() {}
}

// connection takes a connection for s. If the pool has other sessions, it does not
// wait long, since those can be shared.
func (p *Pool) connection(ctx context.Context, s *poolSession) (conn *sql.Conn, err error) {
	others := p.others(s)
	soon := ctx
	if others {
		var cancel context.CancelFunc
		soon, cancel = context.WithTimeout(ctx, connecting/10)
		defer cancel()
	}
	conn, err = p.conn(soon)
	if err != nil && others && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		p.late()
		return nil, fmt.Errorf("%w: %w", errSessionGone, err)
	}
	return conn, err
}

// allInUse reports whether all connections of the *sql.DB are in use.
func (p *Pool) allInUse() bool {
	st := p.db.Stats()
	if st.MaxOpenConnections > 0 {
		return st.InUse >= st.MaxOpenConnections
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Now().Before(p.scarceUntil)
}
