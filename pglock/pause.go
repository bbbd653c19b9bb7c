package pglock

import (
	"context"
	"math/rand/v2"
	"time"

	term "github.com/swanlake-io/swanlock/internal/lease"
)

// A pause grows from one look to the next.
type pause time.Duration

func newPause() *pause { p := pause(2 * time.Millisecond); return &p }

// next returns how long to pause: a random part of an interval that grows to a
// quarter of a second, so that waiters do not march in step.
func (p *pause) next() time.Duration {
	d := time.Duration(*p)
	*p = pause(min(d*3/2, 250*time.Millisecond))
	return d/2 + rand.N(d/2)
}

func (p *pause) wait(ctx context.Context) error { return sleep(ctx, p.next()) }

// sleep returns when d has passed, or with an error when ctx has ended.
func sleep(ctx context.Context, d time.Duration) error {
	if d > 0 && !term.Pause(ctx, d) {
		return notAcquired(ctx)
	}
	return nil
}

// before returns d, or the time until ctx's deadline if that is shorter, but a
// millisecond at least.
func before(ctx context.Context, d time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(deadline))
	}
	return max(d, time.Millisecond)
}

// A rhythm decides when a waiter waits in the server, looks, or pauses. A
// waiter waits in the server while it is next, or while the line moves. The
// server logs each wait that it has to end, so a waiter that is still not next
// after such a wait pauses before the following one, longer each time.
type rhythm struct {
	pause pause
	rest  time.Duration
	looks bool // the next step only looks
}

func newRhythm() *rhythm { return &rhythm{pause: *newPause()} }

// maxRest is the longest pause of a waiter that is not next.
const maxRest = 2 * time.Second

// next returns how long to pause after a step of the waiter with the ticket t.
// It is never longer than most.
func (r *rhythm) next(t *ticket, s advanced, most time.Duration) time.Duration {
	ahead := t != nil && t.ahead.Load() != 0
	looked := r.looks
	r.looks = ahead && s.waited && s.timedOut // The ticket ahead may be gone by now.
	switch {
	case r.looks:
		return 0
	case looked && ahead:
		r.rest = min(max(2*r.rest, 250*time.Millisecond), maxRest)
		return min(r.rest, most)
	case s.waited, looked:
		r.rest = 0
		return 0
	}
	return min(r.pause.next(), most)
}

// maxWait returns how long one statement may wait in the server. That is
// shorter than deadlock, the deadlock_timeout: when that is over, the server
// looks for a deadlock, which stops all other lockers, and is logged.
func maxWait(deadlock time.Duration) time.Duration {
	if deadlock <= 0 {
		deadlock = time.Second
	}
	return min(deadlock/10*9, maxServerWait)
}

// serverWait returns how long one statement of a caller with the context ctx may wait
// in the server. It is 0 if maxWait is so short that many waits would end in vain, each
// of which is logged.
func serverWait(ctx context.Context, deadlock time.Duration) time.Duration {
	d := maxWait(deadlock)
	if d < minServerWait {
		return 0
	}
	return before(ctx, d)
}

const (
	// maxServerWait is the longest that one statement waits in the server,
	// since it holds back vacuum meanwhile.
	maxServerWait = 3 * time.Second
	// minServerWait is the shortest that maxWait may be for that.
	minServerWait = 50 * time.Millisecond
)
