package locktest

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
)

var leaseCases = []testCase{
	{
		name:  "Expires",
		why:   "a TTL frees what a hung holder keeps; the holder must know, with no call of its own, before another can hold it",
		needs: []feature{ttl},
		run:   func(e *env) { e.steady(func() error { return expires(e) }) },
	},
	{
		name:  "LateHolder",
		why:   "a holder that wakes after its TTL calls Refresh and Release as if nothing had happened; neither may touch its successor's lock",
		needs: []feature{ttl},
		run:   lateHolder,
	},
	{
		name:  "RefreshKeeps",
		why:   "a holder that refreshes in time must keep the lock for as long as it does",
		needs: []feature{ttl},
		run:   func(e *env) { e.steady(func() error { return refreshKeeps(e) }) },
	},
	{
		name:  "AutoRefreshKeeps",
		why:   "auto-refresh must not depend on the context of the acquiring, which ends long before the work does",
		needs: []feature{autoRefresh},
		run:   func(e *env) { e.steady(func() error { return autoRefreshKeeps(e) }) },
	},
	{
		name:  "AutoRefreshStops",
		why:   "a refresh that goes on after Release takes the lock from its next holder, or keeps it from everybody",
		needs: []feature{autoRefresh},
		run:   func(e *env) { e.steady(func() error { return autoRefreshStops(e) }) },
	},
	{
		name:  "TwoTTLs",
		why:   "a program holds locks of different TTLs, refreshed by different goroutines; neither may live or die by the other's clock",
		needs: []feature{ttl},
		run: func(e *env) {
			e.steady(func() error { return twoTTLs(e, e.ttl, 2*e.ttl) })
			e.steady(func() error { return twoTTLs(e, 2*e.ttl, e.ttl) })
		},
	},
}

func expires(e *env) error {
	a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
	start := time.Now()
	held := e.mustTry(a, target, swanlock.WithTTL(e.ttl))

	// What the holder knows when the next one has it.
	next := e.start(e.ctx, b, target)
	var errThen, doneThen error
	seen := make(chan struct{})
	e.calls.Go(func() {
		defer close(seen)
		<-next.returned
		doneThen = closedWithin(held.Done(), e.ttl/10, "another locker holds the target, and the holder's Done was not closed")
		errThen = held.Err()
	})

	if err := closedWithin(held.Done(), e.ttl+patience, "Done of a lock that was not refreshed was not closed"); err != nil {
		e.Fatalf("TTL %v: %v", e.ttl, err)
	}
	if took := time.Since(start); took < e.ttl/2 {
		e.Errorf("the lock expired after %v, its TTL is %v", took, e.ttl)
	}
	e.is("Err after the TTL", held.Err(), swanlock.ErrExpired, swanlock.ErrLost)
	e.isNot("Err after the TTL", held.Err(), swanlock.ErrReleased)
	err := held.Refresh(e.ctx)
	e.is("Refresh after the TTL", err, swanlock.ErrExpired, swanlock.ErrLost)
	err = held.Release(e.ctx)
	e.is("Release after the TTL", err, swanlock.ErrExpired, swanlock.ErrLost)
	if err := held.Release(e.ctx); err != nil {
		e.Errorf("second Release after the TTL: got %v, want nil", err)
	}
	e.is("Err after the TTL and Release", held.Err(), swanlock.ErrExpired)

	successor := e.mustGet(next)
	<-seen
	if errThen == nil {
		e.Fatalf("another locker got the target while Err of the holder was nil")
	}
	e.holds("acquired after a TTL ran out", successor, c)
	e.mustRelease(successor)
	return doneThen
}

func lateHolder(e *env) {
	a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
	var opts []swanlock.Option
	if !e.lacks(fence) {
		opts = append(opts, swanlock.WithFence())
	}
	late := e.mustTry(a, target, append(opts, swanlock.WithTTL(e.ttl))...)
	next := e.mustAcquire(b, target, opts...)
	if late.Err() == nil {
		e.Fatalf("another locker got the target while Err of the holder was nil")
	}
	e.is("Refresh by the late holder", late.Refresh(e.ctx), swanlock.ErrExpired, swanlock.ErrLost)
	e.holds("after the late holder's Refresh", next, c)
	e.is("Release by the late holder", late.Release(e.ctx), swanlock.ErrExpired, swanlock.ErrLost)
	e.holds("after the late holder's Release", next, c)
	if old, got := late.Info().Fence, next.Info().Fence; got <= old && !e.lacks(fence) {
		e.Errorf("fence of the successor: got %d, want more than the late holder's %d", got, old)
	}
	e.mustRelease(next)
	e.free("after all", c, target)
}

func refreshKeeps(e *env) error {
	a, b, target := e.locker(), e.locker(), e.target()
	held := e.mustTry(a, target, swanlock.WithTTL(e.ttl))
	for end := time.Now().Add(3 * e.ttl); time.Now().Before(end); time.Sleep(e.ttl / 4) {
		if err := e.refresh(held); err != nil {
			return fmt.Errorf("refreshed every %v, TTL %v: Refresh: %w", e.ttl/4, e.ttl, err)
		}
		if err := e.stillHeld(held, b); err != nil {
			return fmt.Errorf("refreshed every %v, TTL %v: %w", e.ttl/4, e.ttl, err)
		}
	}
	if err := e.release(held); err != nil {
		return fmt.Errorf("refreshed every %v, TTL %v: Release: %w", e.ttl/4, e.ttl, err)
	}
	e.free("after release", b, target)
	return nil
}

func autoRefreshKeeps(e *env) error {
	a, b, target := e.locker(), e.locker(), e.target()
	ctx, cancel := context.WithCancel(e.ctx)
	held, err := a.Acquire(ctx, target, swanlock.WithTTL(e.ttl), swanlock.WithAutoRefresh())
	cancel()
	if err := e.keep(held, err); err != nil {
		return fmt.Errorf("an Acquire with auto-refresh: %w", err)
	}
	for end := time.Now().Add(3 * e.ttl); time.Now().Before(end); time.Sleep(e.ttl / 4) {
		if err := e.stillHeld(held, b); err != nil {
			return fmt.Errorf("auto-refresh, TTL %v: %w", e.ttl, err)
		}
	}
	if err := e.release(held); err != nil {
		return fmt.Errorf("auto-refresh, TTL %v: Release: %w", e.ttl, err)
	}
	e.free("after release", b, target)
	return nil
}

func autoRefreshStops(e *env) error {
	a, b, c, one, two := e.locker(), e.locker(), e.locker(), e.target(), e.target()
	first := e.mustTry(a, one, swanlock.WithTTL(e.ttl), swanlock.WithAutoRefresh())
	second := e.mustTry(a, two, swanlock.WithTTL(e.ttl), swanlock.WithAutoRefresh())
	if err := errors.Join(e.release(first), e.release(second)); err != nil {
		return fmt.Errorf("auto-refresh, TTL %v: Release: %w", e.ttl, err)
	}
	next := e.mustTry(b, one)
	time.Sleep(e.ttl * 3 / 2)
	e.is("Err some time after Release", first.Err(), swanlock.ErrReleased)
	e.holds("some time after its predecessor's release", next, c)
	e.free("some time after release", c, two)
	e.mustRelease(next)
	return nil
}

// stillHeld is holds for an attempt of steady, and refreshes nothing.
func (e *env) stillHeld(held swanlock.DistributedLock, other swanlock.Locker) error {
	e.Helper()
	stolen, err := e.try(other, held.Info().Target)
	lost := held.Err()
	if err == nil {
		_ = stolen.Release(e.ctx)
		if lost == nil {
			e.Fatalf("another locker got the target while Err of the holder was nil")
		}
	} else if !errors.Is(err, swanlock.ErrNotAcquired) {
		e.Fatalf("TryAcquire by another locker: got %v, want ErrNotAcquired", err)
	}
	if lost != nil {
		return fmt.Errorf("the lock was lost: %w", lost)
	}
	return nil
}

// twoTTLs refreshes one of two locks on one locker until the other has expired
// and somebody else holds it.
func twoTTLs(e *env, refreshedTTL, forgottenTTL time.Duration) error {
	a, b := e.locker(), e.locker()
	refreshed := e.mustTry(a, e.target(), swanlock.WithTTL(refreshedTTL))
	forgotten := e.mustTry(a, e.target(), swanlock.WithTTL(forgottenTTL))
	next := e.start(e.ctx, b, forgotten.Info().Target)
	for start := time.Now(); next.waits() || time.Since(start) < 5*e.ttl/2; time.Sleep(e.ttl / 4) {
		if err := e.refresh(refreshed); err != nil {
			return fmt.Errorf("TTL %v, refreshed beside a lock with TTL %v that is not: %w", refreshedTTL, forgottenTTL, err)
		}
		if time.Since(start) > e.freeAfter(forgottenTTL)+patience {
			e.Fatalf("a lock with TTL %v was not free %v after its acquiring, while another with TTL %v on the same locker was refreshed",
				forgottenTTL, time.Since(start), refreshedTTL)
		}
	}
	successor := e.mustGet(next)
	e.is("Err of the lock that was not refreshed", forgotten.Err(), swanlock.ErrExpired)
	if err := e.stillHeld(refreshed, b); err != nil {
		return fmt.Errorf("TTL %v, refreshed beside a lock with TTL %v that was not: %w", refreshedTTL, forgottenTTL, err)
	}
	e.mustRelease(successor)
	if err := e.release(refreshed); err != nil {
		return fmt.Errorf("TTL %v, refreshed beside a lock with TTL %v that was not: Release: %w", refreshedTTL, forgottenTTL, err)
	}
	return nil
}
