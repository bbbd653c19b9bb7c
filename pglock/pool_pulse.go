package pglock

import (
	"math"
	"sync/atomic"
	"time"
)

// A pulse says when a session proves its locks: as often as the pool's option has
// it, or three times in a lease, if that is more often.
type pulse struct {
	interval time.Duration // see WithHeartbeat
	lease    atomic.Int64  // the one on the server, ours or the role's: a time.Duration
	timer    *time.Timer   // the next heartbeat
}

// newPulse returns a pulse that calls beat. next starts it.
func newPulse(interval time.Duration, beat func()) *pulse {
	p := &pulse{interval: interval, timer: time.AfterFunc(math.MaxInt64, beat)}
	p.stop()
	return p
}

// next sets the time of the next heartbeat.
func (p *pulse) next() {
	d := p.interval
	if lease := p.kept(); lease > 0 {
		d = min(d, lease/3)
	}
	p.timer.Reset(d)
}

func (p *pulse) stop() { p.timer.Stop() }

// keep notes the session's lease on the server, and kept returns it.
func (p *pulse) keep(lease time.Duration) { p.lease.Store(int64(lease)) }

func (p *pulse) kept() time.Duration { return time.Duration(p.lease.Load()) }
