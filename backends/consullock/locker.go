package consullock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// A Locker takes locks in Consul. It is safe for concurrent use, and needs no
// closing. Each of its locks has a Consul session of its own, so no target is ever
// swanlock.ErrAlreadyHeld.
type Locker struct {
	client  *api.Client
	session time.Duration

	mu    sync.Mutex
	turns map[string]*turn
}

// An Option sets how a Locker works. A nil Option does nothing.
type Option func(*Locker)

// WithSessionTTL sets the TTL of the sessions behind locks that have none, which are
// renewed in the background every third of it. Such a lock is free after twice that
// time when its process died or was cut off. The default is 10 s, Consul's own
// minimum.
func WithSessionTTL(ttl time.Duration) Option { return func(l *Locker) { l.session = ttl } }

// New returns a Locker on client, which stays the caller's.
func New(client *api.Client, opts ...Option) (*Locker, error) {
	l := &Locker{client: client, session: 10 * time.Second, turns: make(map[string]*turn)}
	for _, opt := range opts {
		if opt != nil {
			opt(l)
		}
	}
	switch {
	case client == nil:
		return nil, errors.New("consullock: the client is nil")
	case l.session < time.Second:
		return nil, fmt.Errorf("consullock: the session's TTL %v is under a second", l.session)
	}
	return l, nil
}

// TryAcquire takes the lock if it is free, in two round trips.
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	r, err := l.request(target, opts)
	if err != nil {
		return nil, err
	}
	h := l.newHold(r)
	held, err := h.try(ctx, r)
	if err != nil && h.refused {
		h.end(ctx)
	}
	return lease.AsLock(held, err)
}

// Acquire waits for the lock. The callers of one Locker get it in the order in which
// they came; those of several race for it.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	r, err := l.request(target, opts)
	if err != nil {
		return nil, err
	}
	h := l.newHold(r)
	leave, err := l.turn(ctx, h.key)
	if err != nil {
		return nil, r.Failed(ctx, nil)
	}
	defer leave()
	held, err := lease.Poll(ctx, "consullock", target, passes, func() (*lease.Lock, error) {
		if h.refused {
			if err := h.freed(ctx); err != nil {
				return nil, r.Wrap(err)
			}
		}
		held, err := h.try(ctx, r)
		if err != nil && !errors.Is(err, swanlock.ErrNotAcquired) {
			h = l.newHold(r) // What was sent may still be on its way: not with this session again.
		}
		return held, err
	})
	if err != nil {
		h.end(ctx)
	}
	return lease.AsLock(held, err)
}

func (l *Locker) request(target string, opts []swanlock.Option) (lease.Request, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err != nil {
		return lease.Request{}, err
	}
	if o.Shared {
		return lease.Request{}, fmt.Errorf("consullock: a key in Consul has one session: there are no shared locks: %w", errors.ErrUnsupported)
	}
	return lease.Request{Package: "consullock", Target: target, Options: o, Lease: cmp.Or(o.TTL, l.session)}, nil
}

func (l *Locker) newHold(r lease.Request) *hold {
	return &hold{client: l.client, ttl: r.Lease, fenced: r.Options.Fence, owner: r.Options.Owner, target: r.Target,
		// A key must not begin with a slash, so a target is no key.
		key: "swanlock/" + strconv.FormatInt(int64(swanlock.KeyOf(r.Target)), 10)}
}

// A turn is taken by the one caller of this Locker that waits for a key at the
// server. An agent serves 200 connections of one host (limits.http_max_conns_per_client),
// and a blocking query needs one for itself.
type turn struct {
	taken   chan struct{}
	callers int // guarded by Locker.mu
}

func (l *Locker) turn(ctx context.Context, key string) (leave func(), err error) {
	l.mu.Lock()
	t := l.turns[key]
	if t == nil {
		t = &turn{taken: make(chan struct{}, 1)}
		l.turns[key] = t
	}
	t.callers++
	l.mu.Unlock()
	left := func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if t.callers--; t.callers == 0 {
			delete(l.turns, key)
		}
	}
	if ctx.Err() != nil {
		left()
		return nil, ctx.Err()
	}
	select {
	case t.taken <- struct{}{}:
		return func() { <-t.taken; left() }, nil
	case <-ctx.Done():
		left()
		return nil, ctx.Err()
	}
}
