// Package multilock takes several locks as one: all of them, or none.
//
//	held, err := multilock.Acquire(ctx, locks, []string{"/accounts/7", "/accounts/9"}, swanlock.WithTTL(time.Minute))
//
// Everybody takes them in one order, whatever order the targets are named in,
// so that callers that want some of the same targets never wait for each other
// in a circle. It works on every swanlock.Locker, and callers that lock one of
// the targets by itself are excluded as well.
package multilock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/quoted"
	"github.com/swanlake-io/swanlock/internal/several"
)

// A Lock is what TryAcquire and Acquire return. Besides the methods of a
// swanlock.DistributedLock it has Parts, the locks of the single targets, each
// with a fence of its own if that was asked for; the Lock itself has one only if
// there is one target. Its Info names the targets, in the order in which they
// were locked, and Targets returns them.
//
// When one of the targets is lost, the Lock is lost, and its error names that
// target. The others stay held until Release, so that nobody begins while the
// holder is still about to stop. Release frees them in reverse.
type Lock = several.Lock

// TryAcquire takes all of targets if all are free now. On a pglock.Pool that is
// one round trip. If one is not free, the error names it and matches
// swanlock.ErrNotAcquired, and nothing is held. Two callers who try at the same
// time may both fail.
//
// The options hold for each target. Targets that are one by swanlock.KeyOf are
// locked once. Of different paths to which it gives one key only one is locked, which
// on redislock, where they are several targets, leaves the others free.
func TryAcquire(ctx context.Context, l swanlock.Locker, targets []string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	s, err := newSet(l, targets, opts)
	if err != nil {
		return nil, err
	}
	held, failed := s.try(ctx, s.targets)
	if failed != nil {
		several.GiveBack(ctx, held)
		return nil, several.Failed(ctx, failed)
	}
	return s.lock(ctx, held, false)
}

// Acquire takes all of targets, and waits until ctx ends. It first tries all;
// then it keeps those up to the first that is not free, waits for that one, and
// goes on. While it waits, it refreshes what it has, if there is a TTL. If one
// of these is lost all the same, it begins anew.
//
// The error names the target that was waited for, and nothing is held.
func Acquire(ctx context.Context, l swanlock.Locker, targets []string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	s, err := newSet(l, targets, opts)
	if err != nil {
		return nil, err
	}
	for {
		held, err := s.acquire(ctx)
		if !errors.Is(err, several.ErrLostMeanwhile) {
			return held, err
		}
	}
}

// A set is the targets of one call.
type set struct {
	l       swanlock.Locker
	targets []string // in the order of their keys, each once
	opts    []swanlock.Option
	options swanlock.Options
}

func newSet(l swanlock.Locker, targets []string, opts []swanlock.Option) (*set, error) {
	if l == nil {
		return nil, errors.New("multilock: the locker is nil")
	}
	if len(targets) == 0 {
		return nil, errors.New("multilock: there are no targets: name what is to be locked")
	}
	s := &set{l: l, opts: opts}
	for _, target := range targets {
		o, err := swanlock.NewOptions(target, opts...)
		if err != nil {
			return nil, fmt.Errorf("multilock: %w", err)
		}
		s.options = o
	}
	s.targets = slices.Clone(targets)
	slices.SortFunc(s.targets, func(a, b string) int {
		return cmp.Or(cmp.Compare(swanlock.KeyOf(a), swanlock.KeyOf(b)), cmp.Compare(a, b))
	})
	s.targets = slices.CompactFunc(s.targets, func(a, b string) bool { return swanlock.KeyOf(a) == swanlock.KeyOf(b) })
	return s, nil
}

// lock returns the lock of all targets.
func (s *set) lock(ctx context.Context, held []swanlock.DistributedLock, waited bool) (swanlock.DistributedLock, error) {
	info := held[0].Info()
	if len(held) > 1 {
		info.Target, info.Fence = strings.Join(s.targets, ", "), 0
	}
	lock := several.New(info, held, s.targets...)
	if err := lock.Renew(ctx, s.options, waited); err != nil {
		return nil, fmt.Errorf("multilock: %w", err)
	}
	return lock, nil
}

// try tries to take targets, all at the same time. It returns those that were
// taken, up to the first that was not, and the error of that one. What came
// after it is free again.
func (s *set) try(ctx context.Context, targets []string) (held []swanlock.DistributedLock, failed error) {
	all, errs := make([]swanlock.DistributedLock, len(targets)), make([]error, len(targets))
	first := 0     // that was not taken
	defer func() { // also if the locker has panicked
		rest := slices.DeleteFunc(slices.Clone(all[first:]), func(l swanlock.DistributedLock) bool { return l == nil })
		several.GiveBack(ctx, rest)
	}()
	several.Each(len(targets), func(i int) {
		all[i], errs[i] = several.Granted(s.l.TryAcquire(ctx, targets[i], s.opts...))
	})
	for first < len(targets) && errs[first] == nil {
		first++
	}
	if first == len(targets) {
		return all, nil
	}
	return all[:first], fmt.Errorf("multilock: %s: %w", quoted.Text(targets[first]), errs[first])
}

func (s *set) acquire(ctx context.Context) (swanlock.DistributedLock, error) {
	keeper := several.NewKeeper(s.options)
	defer keeper.End(ctx)
	waited, err := s.all(ctx, keeper)
	if err != nil {
		return nil, err
	}
	return s.lock(ctx, keeper.Take(), waited)
}

// all takes all targets, and gives them to keeper, which keeps those that it has
// while another is waited for.
func (s *set) all(ctx context.Context, keeper *several.Keeper) (waited bool, err error) {
	for keeper.Len() < len(s.targets) {
		more, err := s.try(ctx, s.targets[keeper.Len():])
		keeper.Add(more...)
		if err == nil {
			break
		}
		if !errors.Is(err, swanlock.ErrNotAcquired) || errors.Is(err, swanlock.ErrAlreadyHeld) || ctx.Err() != nil {
			return waited, several.Failed(ctx, err)
		}
		target := s.targets[keeper.Len()]
		keeper.Keep()
		next, err := several.Granted(s.l.Acquire(ctx, target, s.opts...))
		if err != nil {
			return waited, fmt.Errorf("multilock: %s: %w", quoted.Text(target), err)
		}
		keeper.Add(next)
		waited = true
	}
	return waited, nil
}
