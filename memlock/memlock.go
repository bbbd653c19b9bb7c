// Package memlock locks within one process, for tests of code that takes a
// swanlock.Locker: no server, no polling, and nothing left behind once every
// lock is released. It works inside testing/synctest, so that a TTL of an hour
// passes at once.
//
// Hand one New() to two copies of a service and they exclude each other, as
// two hosts with a pool each would. Lose takes a lock away from its holder, to
// see what the service does then.
package memlock

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

// A Locker is a swanlock.Locker whose locks live in this process. It honours
// every option. Each target has a line, first come, first served: readers next
// to each other in line enter together, and neither a try nor a later reader
// overtakes a waiting writer. Targets are told apart by swanlock.KeyOf, as on a
// server: "/lake/t1" and "lake//t1" are one.
//
// A Locker is like a pool: each of its locks has a session of its own, so that
// a second acquire of a target waits, or fails with swanlock.ErrNotAcquired,
// also one by the same caller. See Session for the other kind.
type Locker struct {
	space *space
	one   bool // a single session
}

// New returns a Locker with no locks held. Lockers from different New calls
// know nothing of each other.
func New() *Locker {
	return &Locker{space: &space{lines: make(map[swanlock.Key]*line)}}
}

// Session returns a Locker on the same locks that is one session, like one
// PostgreSQL connection: it refuses a target that it holds itself with
// swanlock.ErrAlreadyHeld. Sessions exclude each other, and l.
func (l *Locker) Session() *Locker {
	return &Locker{space: l.space, one: true}
}

// TryAcquire takes the lock if it is free and nobody waits for it. A ctx that
// has ended acquires nothing; the error then matches swanlock.ErrNotAcquired
// and context.Cause(ctx).
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.acquire(ctx, target, false, opts)
}

// Acquire joins the target's line and waits for its turn, or until ctx ends:
// then it leaves the line at once, and the error matches
// swanlock.ErrNotAcquired and context.Cause(ctx). A TTL starts with the grant.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.acquire(ctx, target, true, opts)
}

// Lose takes target away from all that hold it, under whichever spelling, as a
// dead session or an administrator would, and reports whether anything held it.
// Their Done is closed when it returns, and their Err matches swanlock.ErrLost
// and cause.
// Pass swanlock.ErrExpired for a TTL that ran out, or nil.
func (l *Locker) Lose(target string, cause error) bool {
	if cause == nil {
		cause = errors.New("taken away by Lose")
	}
	s := l.space
	s.mu.Lock()
	defer s.mu.Unlock()
	ln := s.lines[swanlock.KeyOf(target)]
	if ln == nil {
		return false
	}
	s.settle(ln)
	holders := slices.Clone(ln.holders)
	for _, k := range holders {
		k.end(fmt.Errorf("memlock: %s: %w: %w", quoted.Text(k.info.Target), swanlock.ErrLost, cause))
	}
	s.settle(ln)
	return len(holders) > 0
}

func (l *Locker) acquire(ctx context.Context, target string, wait bool, opts []swanlock.Option) (swanlock.DistributedLock, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, cutShort(ctx, target)
	}

	// A try joins the line too, and leaves it if the lock is not granted at
	// once.
	s := l.space
	s.mu.Lock()
	key := swanlock.KeyOf(target)
	ln := s.lines[key]
	if ln == nil {
		ln = &line{key: key}
		s.lines[key] = ln
	}
	k := newLock(l, ln, target, o)
	ln.waiters = append(ln.waiters, k)
	s.settle(ln)
	if !wait && k.waiting() {
		err := fmt.Errorf("memlock: %s: %w: held by %q", quoted.Text(target), swanlock.ErrNotAcquired, ln.holders[0].info.Owner)
		s.leave(k)
		s.mu.Unlock()
		return nil, err
	}
	s.mu.Unlock()

	select {
	case <-k.answered:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case k.refused != nil:
		return nil, k.refused
	case k.waiting():
		s.leave(k)
		return nil, cutShort(ctx, target)
	case ctx.Err() != nil:
		// Granted as ctx ended. The caller has given up: pass it on.
		if k.ended() == nil {
			k.end(swanlock.ErrReleased)
			s.settle(ln)
		}
		return nil, cutShort(ctx, target)
	}
	return k, nil
}

func cutShort(ctx context.Context, target string) error {
	return fmt.Errorf("memlock: %s: %w: %w", quoted.Text(target), swanlock.ErrNotAcquired, context.Cause(ctx))
}
