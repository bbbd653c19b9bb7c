package redislock

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

// A Locker takes locks on one Redis, or on a majority of several. Every lock has a
// token of its own: no target is ever swanlock.ErrAlreadyHeld. The clients stay
// the caller's.
type Locker struct {
	servers    []*server
	id         string // begins the tokens, and ends the name of the channel
	maxTTL     time.Duration
	quarantine string // ms; "": none
	clock      fences
	wakes      *wakes // nil: waiters are not woken
}

// An Option sets how a Locker works.
type Option func(*Locker)

// WithMaxTTL sets the longest TTL; the default is a minute. A longer one is
// refused, since it is for how long a server that has restarted does not vote: all
// programs that lock on the same servers must have the same.
func WithMaxTTL(d time.Duration) Option { return func(l *Locker) { l.maxTTL = d } }

// WithoutQuarantine lets a server vote as soon as it has restarted or has taken
// over from another, and so a second holder have a lock that the server has
// forgotten, until the first one's TTL ends. reason says why that cannot be, or
// does no harm: it must not be empty. It is needed with a Redis before version 7,
// one that does not allow INFO in scripts, and a Redis Cluster. There are no
// fences then: they might fall.
func WithoutQuarantine(reason string) Option {
	return func(l *Locker) {
		l.quarantine = ""
		if reason == "" {
			l.quarantine = noReason
		}
	}
}

const noReason = "no reason given"

// New returns a Locker on one server, or on several that know nothing of each
// other: three, or five. It sends nothing. A client that waits for no server
// longer than a moment (its DialTimeout, ReadTimeout, MaxRetries) keeps fewer
// goroutines waiting for one that hangs.
func New(servers []redis.Scripter, opts ...Option) (*Locker, error) {
	if len(servers)%2 == 0 {
		return nil, fmt.Errorf("redislock: %d servers: an odd number has a majority", len(servers))
	}
	l := &Locker{id: rand.Text()[:12], maxTTL: time.Minute, quarantine: "default"}
	for _, opt := range opts {
		if opt != nil {
			opt(l)
		}
	}
	switch {
	case l.maxTTL < time.Millisecond:
		return nil, fmt.Errorf("redislock: the longest TTL %v is under a millisecond", l.maxTTL)
	case l.maxTTL > math.MaxInt64/2:
		return nil, fmt.Errorf("redislock: the longest TTL %v is above %v", l.maxTTL, time.Duration(math.MaxInt64/2))
	case l.quarantine == noReason:
		return nil, errors.New("redislock: WithoutQuarantine needs a reason")
	case l.quarantine != "":
		l.quarantine = ms(serverLease(l.maxTTL) + time.Second) // Redis counts its uptime in whole seconds.
	}
	for _, client := range servers {
		if v := reflect.ValueOf(client); !v.IsValid() || v.Kind() == reflect.Pointer && v.IsNil() {
			return nil, errors.New("redislock: a client is nil")
		}
		l.servers = append(l.servers, newServer(client))
	}
	if subscriber, ok := servers[0].(subscriber); ok && len(servers) == 1 {
		l.wakes = newWakes(subscriber, wakeChannel+l.id)
	}
	return l, nil
}

// patience bounds a call that gets no answers and whose context has no end.
const patience = 5 * time.Second

// untold is the lease of a lock without a TTL, which is kept alive.
const untold = 10 * time.Second

func (l *Locker) leaseOf(o swanlock.Options) time.Duration {
	return cmp.Or(o.TTL, min(untold, l.maxTTL))
}

// serverLease is for how long servers keep a lock whose holder counts on d: longer,
// since their clocks may be faster, or be set.
func serverLease(d time.Duration) time.Duration { return d + d/100 + 2*time.Millisecond }

// TryAcquire takes the lock if it is free now. With several servers it votes
// again while the votes are split, for at most five seconds.
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	o, err := l.options(target, opts)
	if err != nil {
		return nil, err
	}
	return lease.AsLock(l.try(ctx, target, o))
}

// Acquire waits for the lock until ctx ends. On a single server waiters are served
// in the order in which they came, and are woken; one that was not heard of for
// three seconds loses its place. With several servers they ask every 50 to 100
// ms, in no order. It waits also while servers cannot be reached, or restart, or
// do not vote yet.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	o, err := l.options(target, opts)
	if err != nil {
		return nil, err
	}
	acquire := l.try
	if len(l.servers) == 1 {
		acquire = l.wait // It returns swanlock.ErrNotAcquired, while ctx lives, if the lock came too late.
	}
	return lease.AsLock(lease.Poll(ctx, "redislock", target, passes, func() (*lease.Lock, error) { return acquire(ctx, target, o) }))
}

func (l *Locker) options(target string, opts []swanlock.Option) (swanlock.Options, error) {
	o, err := swanlock.NewOptions(target, opts...)
	switch {
	case err != nil:
	case o.Shared:
		err = fmt.Errorf("redislock: %s: no shared locks: a vote has one holder: %w", quoted.Text(target), errors.ErrUnsupported)
	case o.TTL > l.maxTTL:
		err = fmt.Errorf("redislock: %s: the TTL %v is longer than %v, see WithMaxTTL: %w", quoted.Text(target), o.TTL, l.maxTTL, errors.ErrUnsupported)
	case o.Fence && l.quarantine == "":
		err = fmt.Errorf("redislock: %s: no fences without the quarantine: they might fall: %w", quoted.Text(target), errors.ErrUnsupported)
	}
	return o, err
}

func (l *Locker) request(a *attempt, target string, o swanlock.Options) lease.Request {
	return lease.Request{Package: "redislock", Target: target, Options: o, Backend: a, Lease: l.leaseOf(o), Patience: patience}
}

func (l *Locker) try(ctx context.Context, target string, o swanlock.Options) (*lease.Lock, error) {
	for begun, n := time.Now(), 0; ; n++ {
		a := l.attempt(target, o)
		held, err := lease.Try(ctx, l.request(a, target, o), func(ctx context.Context) (uint64, error) {
			return a.acquire(ctx, "0", "")
		})
		if !errors.Is(err, errSplit) || time.Since(begun) > patience {
			return held, err
		}
		lease.Pause(ctx, lease.Backoff(n)) // If ctx ends, the next Try says so.
	}
}

// keyOf returns the key of a target, of which all spellings have one, as with
// swanlock.KeyOf. Its braces make a cluster keep all keys of a target together; a
// brace in the target would end them early.
func keyOf(target string) string {
	var parts []string
	for i, part := range strings.Split(target, "/") {
		if part != "" && (part != "." || i == 0) {
			parts = append(parts, part)
		}
	}
	if len(parts) == 0 {
		parts = []string{"/"} // A cluster takes empty braces for part of a name.
	}
	return "swanlock:{" + escape.Replace(strings.Join(parts, "/")) + "}"
}

var escape = strings.NewReplacer("%", "%25", "}", "%7D")

// fences proposes fences: the time, in microseconds, or more if it has seen more.
type fences struct{ last atomic.Uint64 }

func (c *fences) next() uint64 { return max(uint64(time.Now().UnixMicro()), c.last.Load()+1) }

func (c *fences) see(fence uint64) {
	for {
		last := c.last.Load()
		if fence <= last || c.last.CompareAndSwap(last, fence) {
			return
		}
	}
}
