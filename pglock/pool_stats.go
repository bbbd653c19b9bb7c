package pglock

import (
	"slices"
	"time"
)

// PoolStats says how a Pool is doing. The first fields are as of now, and the
// counters are as of NewPool. Fields may be added.
type PoolStats struct {
	MaxSessions     int // how many connections the pool may have now: see WithMaxSessions
	Sessions        int // how many it has, or is opening
	WaitingSessions int // those of them on which a caller waits in the server

	Limit   int       // how many locks and places in line the pool may have now; beyond it, ErrPoolFull
	Used    int       // what counts against Limit: locks held or asked for, and places in line
	Locks   int       // the locks that are held
	Waiters int       // callers that wait in line
	Oldest  time.Time // when the oldest of the locks was acquired; zero: none is held

	RoundTrips    int64         // statements sent: each is one round trip, and one more when a session first sends it
	Batches       int64         // statements that served several callers at once
	Batched       int64         // the acquires and releases in those
	LargestBatch  int64         // the most in one
	Heartbeats    int64         // statements that proved all locks of a session
	HeartbeatTime time.Duration // how long those took, in all
}

// Stats returns how the pool is doing. It sends nothing, and looks at each lock:
// that takes microseconds for hundreds. It is for collectors of metrics, such as
// those in metrics/otel and metrics/prometheus, and works after Close, too.
func (p *Pool) Stats() PoolStats {
	r := p.keys
	r.mu.Lock()
	s := PoolStats{MaxSessions: p.guest.limit(), Sessions: len(r.sessions), WaitingSessions: r.waiting, Used: r.locks}
	s.Limit = min(r.maxLocks, s.MaxSessions*locksPerSession)
	s.Waiters = r.waitersLocked()
	sessions := slices.Clone(r.sessions)
	r.mu.Unlock() // The ledgers' mutexes are taken before it.
	for _, session := range sessions {
		if session.isOpen() {
			n, oldest := session.led.live()
			if s.Locks += n; n > 0 && (s.Oldest.IsZero() || oldest.Before(s.Oldest)) {
				s.Oldest = oldest
			}
		}
	}
	c := &p.counts
	s.RoundTrips, s.Batches, s.Batched, s.LargestBatch = c.roundTrips.Load(), c.batches.Load(), c.batched.Load(), c.largest.Load()
	s.Heartbeats, s.HeartbeatTime = c.heartbeats.Load(), time.Duration(c.heartbeatTime.Load())
	return s
}
