// Package semaphore lets a number of holders, and no more, have a target at the
// same time, on all hosts.
//
//	sem := semaphore.New(locks, 5)
//	held, err := sem.Acquire(ctx, "/reports", swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
//
// Each of the places is a lock of its own, named after the target, so a place is
// free again as soon as its holder's lock is: when its process or its session
// dies, or its TTL ends.
//
// All processes should say the same number. While a deployment changes it, no
// more than the larger number hold the target together: the places are numbered,
// and a process uses those up to its own number.
package semaphore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/internal/quoted"
	"github.com/swanlake-io/swanlock/internal/several"
)

// A Semaphore is a swanlock.Locker whose targets can be held several times. It
// refuses WithShared and WithFence, with errors that match
// errors.ErrUnsupported: its holders are not readers, and have no order.
type Semaphore struct {
	l      swanlock.Locker
	places int
	weight int
}

// New returns a semaphore with that many places for each target. The locks of
// the places are l's.
func New(l swanlock.Locker, places int) *Semaphore { return &Semaphore{l, places, 1} }

// Weighted returns a Semaphore whose acquires take that many places at once, or
// none. It shares the places with s.
func (s *Semaphore) Weighted(places int) *Semaphore { return &Semaphore{s.l, s.places, places} }

// TryAcquire takes a place that is free, if there is one. It tries the places
// one after the other, in a random order: one round trip while there is room,
// and one for each place if there is none. It overtakes those that wait.
func (s *Semaphore) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	o, err := s.check(target, opts)
	if err != nil {
		return nil, err
	}
	keeper := several.NewKeeper(o)
	defer keeper.End(ctx)
	refused, err := s.try(ctx, target, keeper, opts)
	if err == nil && keeper.Len() < s.weight {
		err = fmt.Errorf("semaphore: %s: %d of its %d places were free: %w", quoted.Text(target), keeper.Len(), s.places, refused)
	}
	if err != nil {
		return nil, err
	}
	return lock(ctx, target, o, keeper.Take(), false)
}

// Acquire waits for a place until ctx ends. Those that wait are served in the
// order in which l serves them: they stand in line for a lock of their own, and
// the first waits for all places at the same time. That lock costs two round
// trips more than TryAcquire. On a pglock.Pool each of these waits may use a
// session; on a pglock.Session they take turns on the connection, so that a
// place that has become free is found within a second for each place. Of several
// calls on one Session, one stands in line at a time.
func (s *Semaphore) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	o, err := s.check(target, opts)
	if err != nil {
		return nil, err
	}
	for {
		held, err := s.standInLine(ctx, target, o, opts)
		if !errors.Is(err, several.ErrLostMeanwhile) {
			return held, err
		}
	}
}

// standInLine acquires places in its turn. Its error matches
// several.ErrLostMeanwhile if one was lost while the place in line was given up, or
// if that was lost.
func (s *Semaphore) standInLine(ctx context.Context, target string, o swanlock.Options, opts []swanlock.Option) (swanlock.DistributedLock, error) {
	line := []swanlock.Option{swanlock.WithOwner(o.Owner)}
	if o.TTL > 0 {
		line = append(line, swanlock.WithTTL(max(o.TTL, time.Second)), swanlock.WithAutoRefresh())
	}
	stand := func() (swanlock.DistributedLock, error) {
		return several.Granted(s.l.Acquire(ctx, target+"/line", line...))
	}
	first, err := stand()
	if errors.Is(err, errors.ErrUnsupported) && 0 < o.TTL && o.TTL < time.Second {
		// The longest TTL of l is shorter than that.
		line = append(line, swanlock.WithTTL(o.TTL))
		first, err = stand()
	}
	for errors.Is(err, swanlock.ErrAlreadyHeld) {
		// Another call on this session is the first in line.
		if !lease.Pause(ctx, ownPause) {
			err = fmt.Errorf("%w: %w", swanlock.ErrNotAcquired, context.Cause(ctx))
			break
		}
		first, err = stand()
	}
	if err != nil {
		return nil, fmt.Errorf("semaphore: %s: %w", quoted.Text(target), err)
	}
	place, places := several.NewKeeper(o), several.NewKeeper(o)
	place.Add(first)
	defer place.End(ctx)
	defer places.End(ctx)
	// When its place is lost, another is the first. Two that wait would keep from each
	// other what they have.
	wctx, cancel := swanlock.WithLock(ctx, first)
	defer cancel()
	held, err := s.acquire(wctx, target, o, opts)
	for errors.Is(err, several.ErrLostMeanwhile) && wctx.Err() == nil {
		held, err = s.acquire(wctx, target, o, opts)
	}
	switch {
	case err == nil:
		places.Add(held)
	case first.Err() != nil:
		err = several.ErrLostMeanwhile
	}
	place.Take()
	left := first.Release(ctx)
	switch {
	case left != nil && first.Err() == nil: // If it was lost, others may have overtaken.
		err = errors.Join(err, fmt.Errorf("semaphore: %s: the place in line could not be given up: %w", quoted.Text(target), left))
	case err == nil && held.Err() != nil:
		err = fmt.Errorf("semaphore: %s: %w", quoted.Text(target), several.ErrLostMeanwhile)
	}
	if err != nil {
		return nil, err
	}
	places.Take()
	return held, nil
}

// acquire takes places for the first in line.
func (s *Semaphore) acquire(ctx context.Context, target string, o swanlock.Options, opts []swanlock.Option) (swanlock.DistributedLock, error) {
	keeper := several.NewKeeper(o)
	defer keeper.End(ctx)
	_, err := s.try(ctx, target, keeper, opts)
	waited := false
	for err == nil && keeper.Len() < s.weight {
		keeper.Keep()
		var more []swanlock.DistributedLock
		more, err = s.wait(ctx, target, s.weight-keeper.Len(), opts)
		keeper.Add(more...)
		waited = true
	}
	if err != nil {
		return nil, err
	}
	return lock(ctx, target, o, keeper.Take(), waited)
}

func (s *Semaphore) check(target string, opts []swanlock.Option) (o swanlock.Options, err error) {
	o, err = swanlock.NewOptions(target, opts...)
	switch {
	case err != nil:
		err = fmt.Errorf("semaphore: %w", err)
	case s.l == nil:
		err = errors.New("semaphore: the locker is nil")
	case s.places < 1:
		err = fmt.Errorf("semaphore: it has %d places: it needs one or more", s.places)
	case s.weight < 1 || s.weight > s.places:
		err = fmt.Errorf("semaphore: a weight of %d is not from 1 to its %d places", s.weight, s.places)
	case o.Shared:
		err = fmt.Errorf("semaphore: WithShared: %w: its places are what several holders share", errors.ErrUnsupported)
	case o.Fence:
		err = fmt.Errorf("semaphore: WithFence: %w: its holders have no order", errors.ErrUnsupported)
	}
	return o, err
}

func (s *Semaphore) place(target string, i int) string { return fmt.Sprintf("%s/place-%d", target, i) }

// try takes places that are free, as many as are wanted at most, and gives them to
// keeper. refused is why another was not taken: it matches swanlock.ErrAlreadyHeld
// only if all the others are this session's.
func (s *Semaphore) try(ctx context.Context, target string, keeper *several.Keeper, opts []swanlock.Option) (refused, err error) {
	for _, i := range rand.Perm(s.places) {
		if keeper.Len() == s.weight {
			break
		}
		keeper.Keep()
		p, err := several.Granted(s.l.TryAcquire(ctx, s.place(target, i), opts...))
		switch {
		case err == nil:
			keeper.Add(p)
		case !errors.Is(err, swanlock.ErrNotAcquired) || ctx.Err() != nil:
			return nil, fmt.Errorf("semaphore: %s: %w", quoted.Text(target), several.Failed(ctx, err))
		case refused == nil || errors.Is(refused, swanlock.ErrAlreadyHeld):
			refused = err
		}
	}
	return refused, nil
}

// ownPause is how long to pause before a session asks again for what it holds
// itself: it may release that meanwhile.
const ownPause = time.Second / 4

// wait waits for all places, and returns those that become free first, n at
// most. What is granted later is given back in the background. If this session
// has all of them, the error matches swanlock.ErrAlreadyHeld.
func (s *Semaphore) wait(ctx context.Context, target string, n int, opts []swanlock.Option) (parts []swanlock.DistributedLock, err error) {
	wctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		place int
		p     swanlock.DistributedLock
		err   error
		fate  any
	}
	answers := make(chan answer, s.places)
	ask := func(place int) {
		a := answer{place: place, err: errPanicked}
		several.Caught(func() {
			a.p, a.err = several.Granted(s.l.Acquire(wctx, s.place(target, place), opts...))
		}, func(fate any) {
			a.fate = fate
			answers <- a
		})
	}
	var own atomic.Int32 // how many places this session has, as it was last told
	for i := range s.places {
		go ask(i)
	}
	left := s.places
	defer func() {
		go func() {
			for range left {
				if a := <-answers; a.err == nil {
					several.GiveBack(ctx, []swanlock.DistributedLock{a.p})
				}
			}
		}()
	}()
	for len(parts) < n {
		if len(parts) > 0 && len(answers) == 0 {
			break
		}
		a := <-answers
		left--
		switch {
		case a.err == nil:
			parts = append(parts, a.p)
		case errors.Is(a.err, swanlock.ErrAlreadyHeld) && int(own.Add(1)) < s.places:
			left++
			go func() {
				lease.Pause(wctx, ownPause)
				own.Add(-1)
				ask(a.place)
			}()
		default:
			several.GiveBack(ctx, parts)
			several.Repeat(a.fate)
			return nil, fmt.Errorf("semaphore: %s: %w", quoted.Text(target), a.err)
		}
	}
	return parts, nil
}

// errPanicked is the error of a call that did not return.
var errPanicked = errors.New("the locker panicked")

func lock(ctx context.Context, target string, o swanlock.Options, parts []swanlock.DistributedLock, waited bool) (swanlock.DistributedLock, error) {
	info := parts[0].Info()
	info.Target, info.Fence = target, 0 // Some lockers give each grant a fence.
	held := several.New(info, parts)
	if err := held.Renew(ctx, o, waited); err != nil {
		return nil, fmt.Errorf("semaphore: %s: %w", quoted.Text(target), err)
	}
	return held, nil
}
