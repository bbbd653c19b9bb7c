package pglock

import (
	"slices"
	"sync/atomic"
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

// counts has the counters of PoolStats.
type counts struct {
	roundTrips, batches, batched, largest, heartbeats, heartbeatTime atomic.Int64
}

// sent notes that a statement has returned err.
func (c *counts) sent(err error) {
	if !notSent(err) {
		c.roundTrips.Add(1)
	}
}

// batch notes that a statement is sent for n callers.
func (c *counts) batch(n int) {
	c.batches.Add(1)
	c.batched.Add(int64(n))
	for most := c.largest.Load(); int64(n) > most && !c.largest.CompareAndSwap(most, int64(n)); {
		most = c.largest.Load()
	}
}

// heartbeat notes that the heartbeat of a session has returned, which was sent at
// the time given.
func (c *counts) heartbeat(sent time.Time) {
	c.heartbeats.Add(1)
	c.heartbeatTime.Add(int64(time.Since(sent)))
}

// Stats returns how the pool is doing. It sends nothing, and looks at each lock:
// that takes microseconds for hundreds. It is for collectors of metrics, such as
// those in metrics/otel and metrics/prometheus, and works after Close, too.
func (p *Pool) Stats() PoolStats {
	r := p.keys
	r.mu.Lock()
	s := PoolStats{MaxSessions: p.guest.limit(), Sessions: len(r.sessions), WaitingSessions: r.waiting, Used: r.locks}
	s.Limit = min(r.maxLocks, s.MaxSessions*locksPerSession)
	for _, q := range r.queues {
		s.Waiters += len(q.waiters)
	}
	sessions := slices.Clone(r.sessions)
	r.mu.Unlock() // The ledgers' mutexes are taken before it.
	for _, session := range sessions {
		if session.isOpen() {
			s.look(session.led)
		}
	}
	c := &p.counts
	s.RoundTrips, s.Batches, s.Batched, s.LargestBatch = c.roundTrips.Load(), c.batches.Load(), c.batched.Load(), c.largest.Load()
	s.Heartbeats, s.HeartbeatTime = c.heartbeats.Load(), time.Duration(c.heartbeatTime.Load())
	return s
}

// look counts the locks of a session.
func (s *PoolStats) look(led *ledger) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, h := range led.locks {
		if h.err != nil { // It is to be unlocked.
			continue
		}
		s.Locks++
		if at := h.info.AcquiredAt; s.Oldest.IsZero() || at.Before(s.Oldest) {
			s.Oldest = at
		}
	}
}
