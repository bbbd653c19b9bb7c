package etcdlock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// A Locker takes locks in etcd. It is safe for concurrent use, and needs no
// closing: once its locks are released, nothing of it runs. Each of its locks is, as
// far as a caller can see, a session of its own, so no target is ever
// swanlock.ErrAlreadyHeld.
type Locker struct {
	client  *clientv3.Client
	session time.Duration
	leases  leases
	line    localLine
}

// An Option sets how a Locker works. A nil Option does nothing.
type Option func(*Locker)

// WithSessionTTL sets after how long locks without a TTL are free when their
// process died or was cut off: whole seconds, 2 at least; the default is 10 s. Such
// locks are kept alive in the background, every third of that.
func WithSessionTTL(ttl time.Duration) Option { return func(l *Locker) { l.session = ttl } }

// New returns a Locker on client, which stays the caller's.
func New(client *clientv3.Client, opts ...Option) (*Locker, error) {
	l := &Locker{client: client, session: 10 * time.Second,
		leases: leases{client: client, groups: make(map[time.Duration]*group), idle: make(map[time.Duration][]*serverLease)},
		line:   localLine{keys: make(map[string]*localKey)}}
	for _, opt := range opts {
		if opt != nil {
			opt(l)
		}
	}
	switch {
	case client == nil:
		return nil, errors.New("etcdlock: the client is nil")
	case l.session < minTTL || l.session%time.Second != 0 || l.session > maxTTL:
		return nil, fmt.Errorf("etcdlock: the session's TTL %v is not whole seconds, 2 at least", l.session)
	}
	return l, nil
}

// TryAcquire takes the lock if nobody holds it or waits for it; a reader, if no
// writer does. It takes one round trip, and another for the first lock with a TTL.
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	r, err := l.request(target, opts)
	if err != nil {
		return nil, err
	}
	held, err := lease.Try(ctx, r, func(ctx context.Context) (fence uint64, err error) {
		e := r.Backend.(*entry)
		if err := e.create(ctx, e.try); err != nil {
			return 0, err
		}
		return e.fence(), nil
	})
	return l.keep(ctx, r, held, err)
}

// Acquire waits for the lock in the order in which callers came, whatever process
// they are of. If the waiter's place in line is lost, because etcd could not be
// reached for as long as its lease lasts or because somebody deleted its key, the
// error matches swanlock.ErrLost.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	r, err := l.request(target, opts)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, r.Failed(ctx, nil)
	}
	held, err := lease.Poll(ctx, "etcdlock", target, passes, func() (*lease.Lock, error) {
		// Each attempt has a key of its own: what the one before has sent may
		// still be on its way.
		r.Backend = l.newEntry(r.Target, r.Options)
		return l.queue(ctx, r)
	})
	return l.keep(ctx, r, held, err)
}

// queue gets in line and waits.
func (l *Locker) queue(ctx context.Context, r lease.Request) (*lease.Lock, error) {
	e := r.Backend.(*entry)
	start := time.Now()
	err := e.create(ctx, e.join)
	if err == nil && e.before != "" {
		if err = e.wait(ctx); err == nil {
			start = time.Now()
			err = e.restart(ctx)
		}
	}
	if err == nil {
		return lease.Granted(ctx, r, start, e.fence())
	}
	_, _ = lease.Free(ctx, e)
	return nil, r.Failed(ctx, err)
}

// keep returns held as an interface, and has its lease, if others share it, keep it
// alive.
func (l *Locker) keep(ctx context.Context, r lease.Request, held *lease.Lock, err error) (swanlock.DistributedLock, error) {
	if err == nil {
		r.Backend.(*entry).held(held)
		if over := held.Err(); over != nil { // The lease, which was there before, has ended.
			_ = held.Release(ctx)
			return nil, r.Failed(ctx, over)
		}
	}
	return lease.AsLock(held, err)
}

// request checks what the caller asks for.
func (l *Locker) request(target string, opts []swanlock.Option) (lease.Request, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err != nil {
		return lease.Request{}, err
	}
	if o.TTL > maxTTL {
		return lease.Request{}, fmt.Errorf("etcdlock: the TTL %v is over etcd's maximum of %v: %w", o.TTL, maxTTL, errors.ErrUnsupported)
	}
	e := l.newEntry(target, o)
	return lease.Request{Package: "etcdlock", Target: target, Options: o, Lease: cmp.Or(o.TTL, l.session),
		Backend: e, Kept: e.sharesLease}, nil
}
