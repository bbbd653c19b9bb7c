package pglock

import (
	"sync/atomic"
	"time"
)

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
