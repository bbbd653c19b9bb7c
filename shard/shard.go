// Package shard spreads targets over several lockers, so that more than one server
// does the work. Each target is locked on one of them, which its key and the
// lockers' names decide: all processes that name them alike agree, in whatever order
// they name them. When a shard is added or removed, only the targets that it gets
// or had are locked elsewhere from then on.
//
//	locks, err := shard.New(shard.Shard{Name: "eu-1", Locker: poolOfEU1}, shard.Shard{Name: "eu-2", Locker: poolOfEU2})
//
// A target whose server is down cannot be locked: shards are for more work, not for
// more safety.
package shard

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"reflect"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/chain"
)

// A Shard is one of the lockers. Its name decides which targets it has, so a server
// keeps its name when it moves to another address.
type Shard struct {
	Name   string
	Locker swanlock.Locker
}

// A Locker is a swanlock.Locker that passes each acquire on to one of its shards.
// Its locks are theirs, and so are its errors and what it refuses.
type Locker struct{ shards []Shard }

// New returns a Locker over shards. There must be one at least, and each must have
// a name of its own.
func New(shards ...Shard) (*Locker, error) {
	if len(shards) == 0 {
		return nil, errors.New("shard: there are no shards")
	}
	names := make(map[string]bool)
	for _, s := range shards {
		switch {
		case s.Name == "":
			return nil, errors.New("shard: a shard has no name: the name decides which targets it has")
		case names[s.Name]:
			return nil, fmt.Errorf("shard: two shards are named %q", s.Name)
		case s.Locker == nil:
			return nil, fmt.Errorf("shard: the locker of %q is nil", s.Name)
		}
		names[s.Name] = true
	}
	return &Locker{append([]Shard(nil), shards...)}, nil
}

// Of returns the shard that has the target.
func (l *Locker) Of(target string) Shard {
	key := swanlock.KeyOf(target)
	best, most := 0, uint64(0)
	for i, s := range l.shards {
		if w := weight(s.Name, key); w > most || w == most && s.Name > l.shards[best].Name {
			best, most = i, w
		}
	}
	return l.shards[best]
}

// weight is the weight of rendezvous hashing: the shard with the highest has the key.
// All processes must agree on it, so it never changes. See Thaler and Ravishankar,
// "Using name-based mappings to increase hit rates" (1998).
func weight(name string, key swanlock.Key) uint64 {
	h := fnv.New64a()
	h.Write([]byte(name))
	h.Write(binary.BigEndian.AppendUint64(nil, uint64(key)))
	x := h.Sum64()
	// FNV leaves the upper bits alike for keys that are alike: the end of
	// MurmurHash3 mixes them.
	x ^= x >> 33
	x *= 0xff51afd7ed558ccd
	x ^= x >> 33
	x *= 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// TryAcquire is that of the target's shard.
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.Of(target).acquire(ctx, target, opts, swanlock.Locker.TryAcquire)
}

// Acquire is that of the target's shard.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.Of(target).acquire(ctx, target, opts, swanlock.Locker.Acquire)
}

func (s Shard) acquire(ctx context.Context, target string, opts []swanlock.Option,
	acquire func(swanlock.Locker, context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error)) (swanlock.DistributedLock, error) {
	held, err := acquire(s.Locker, ctx, target, opts...)
	if err != nil {
		return nil, fmt.Errorf("shard %q: %w", s.Name, err)
	}
	return held, nil
}

// Moving returns a swanlock.Locker for the time in which a fleet goes from the
// shards before to the shards after. A target that both have on one shard is locked
// there; any other on both, first where it was, so that processes of either kind are
// excluded. Each process goes from before to Moving, and when no process locks with
// before alone any more, from Moving to after.
//
// A shard that has another name in after has the same Locker there: with two
// Lockers of one server, Moving would wait for what it holds itself.
//
// For a target that moves, WithFence is refused with errors.ErrUnsupported, since
// each server counts for itself. The server that gets it must count on from above:
// raise its fences before the move (docs/fences.md).
func Moving(before, after *Locker) swanlock.Locker { return moving{before, after} }

type moving struct{ before, after *Locker }

func (m moving) of(target string) (swanlock.Locker, error) {
	if m.before == nil || m.after == nil {
		return nil, errors.New("shard: Moving needs the lockers before and after")
	}
	from, to := m.before.Of(target), m.after.Of(target)
	renamed := reflect.ValueOf(from.Locker).Comparable() && from.Locker == to.Locker
	if from.Name == to.Name || renamed {
		return m.after, nil
	}
	return chain.New(m.before, m.after), nil
}

func (m moving) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	l, err := m.of(target)
	if err != nil {
		return nil, err
	}
	return l.TryAcquire(ctx, target, opts...)
}

func (m moving) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	l, err := m.of(target)
	if err != nil {
		return nil, err
	}
	return l.Acquire(ctx, target, opts...)
}
