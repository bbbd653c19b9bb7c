package pglock

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A queue is those callers of a pool who wait for one key, in the order in which
// they came. It is guarded by the pool's mutex.
type queue struct{ waiters []chan struct{} }

// wake wakes who is first; wakeAll wakes them all.
func (q *queue) wake() {
	select {
	case q.waiters[0] <- struct{}{}:
	default:
	}
}

func (q *queue) wakeAll() {
	for _, w := range q.waiters {
		select {
		case w <- struct{}{}:
		default:
		}
	}
}

// wait waits in line, and then tries, when the lock is released here and from
// time to time, until it is acquired or ctx ends.
func (p *Pool) wait(ctx context.Context, r request) (*PostgresLock, error) {
	me := make(chan struct{}, 1)
	p.mu.Lock()
	q := p.queues[r.key]
	if q == nil {
		q = &queue{}
		p.queues[r.key] = q
	}
	q.waiters = append(q.waiters, me)
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		q.waiters = slices.DeleteFunc(q.waiters, func(w chan struct{}) bool { return w == me })
		if len(q.waiters) == 0 {
			delete(p.queues, r.key)
		} else {
			q.wake()
		}
	}()
	r.waiting = true
	interval := 2 * time.Millisecond
	for {
		p.mu.Lock()
		first, closed := q.waiters[0] == me, p.closed
		p.mu.Unlock()
		if closed {
			return nil, errPoolClosed
		}
		var again <-chan time.Time
		if first {
			l, err := p.try(ctx, r)
			if !errors.Is(err, swanlock.ErrNotAcquired) {
				return l, err
			}
			again = time.After(interval/2 + rand.N(interval/2))
			interval = min(interval*3/2, 250*time.Millisecond)
		}
		select {
		case <-me:
		case <-again:
		case <-ctx.Done():
			return nil, notAcquired(ctx)
		}
	}
}
