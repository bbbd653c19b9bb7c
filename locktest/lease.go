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
		name:  "OwnSuccessor",
		why:   "a program that overran its TTL takes the lock again on the same locker, and one of its goroutines still has the old one: it must neither be kept out by what it has lost, nor free what it holds",
		needs: []feature{ttl},
		run:   ownSuccessor,
	},
	{
		name:  "WaitsLongerThanItsTTL",
		why:   "a lock whose TTL began with the wait is over when it is granted, and another takes it while the caller begins to work",
		needs: []feature{ttl},
		run:   func(e *env) { e.steady(func() error { return waitsLongerThanItsTTL(e) }) },
	},
	{
		name:  "ExpiresAfterAWait",
		why:   "a lock that was waited for is taken by other code than one that is free: if that forgets the TTL, a holder that hangs keeps everybody out for ever",
		needs: []feature{ttl},
		run:   func(e *env) { e.steady(func() error { return expiresAfterAWait(e) }) },
	},
	{
		name:  "AutoRefreshAfterAWait",
		why:   "a lock that was waited for is taken by other code than one that is free: if that forgets to refresh, the lock is lost while its holder works",
		needs: []feature{autoRefresh},
		run:   func(e *env) { e.steady(func() error { return autoRefreshAfterAWait(e) }) },
	},
	{
		name:  "ReadersExpire",
		why:   "a reader that hangs keeps all writers out, unless its TTL ends, whatever the other readers do; and theirs must not end with it",
		needs: []feature{ttl, shared},
		run:   func(e *env) { e.steady(func() error { return readersExpire(e) }) },
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
	var late error
	switch took := time.Since(start); {
	case took < e.ttl/2:
		e.Errorf("the lock expired after %v, its TTL is %v", took, e.ttl)
	case took > e.ttl*3/2:
		late = fmt.Errorf("a lock that was not refreshed: Done was closed after %v, its TTL is %v", took, e.ttl)
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
	return errors.Join(doneThen, late)
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

func ownSuccessor(e *env) {
	a, b, target := e.locker(), e.locker(), e.target()
	late := e.mustTry(a, target, swanlock.WithTTL(e.ttl))
	e.mustClose(late.Done(), "Done of a lock that was not refreshed was not closed")
	again, err := e.result(e.start(e.ctx, a, target))
	if err != nil { // The TTL has ended the whole session.
		e.isNot("Acquire of what the same locker has lost", err, swanlock.ErrNotAcquired)
		e.mustRelease(e.mustAcquire(b, target))
		return
	}
	e.is("Refresh of what the same locker holds anew", late.Refresh(e.ctx), swanlock.ErrExpired)
	e.holds("after the old lock's Refresh", again, b)
	e.is("Release of what the same locker holds anew", late.Release(e.ctx), swanlock.ErrExpired)
	e.holds("after the old lock's Release", again, b)
	e.mustRelease(again)
	e.free("after all", b, target)
}

func waitsLongerThanItsTTL(e *env) error {
	a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
	held := e.mustTry(a, target)
	wait := e.start(e.ctx, b, target, swanlock.WithTTL(e.ttl))
	time.Sleep(e.ttl * 3 / 2)
	if !wait.waits() {
		_, err := e.result(wait)
		e.Fatalf("TTL %v: Acquire returned with %v while another holds the target, want it to wait", e.ttl, err)
	}
	e.mustRelease(held)
	next := e.mustGet(wait)
	err := e.stillHeld(next, c)
	if deadline, ok := next.Deadline(); err == nil && (!ok || !deadline.After(time.Now())) {
		err = fmt.Errorf("its deadline is %v from now, %t", time.Until(deadline), ok)
	}
	if rerr := e.release(next); err == nil && rerr != nil {
		err = fmt.Errorf("its Release: %w", rerr)
	}
	if err != nil {
		return fmt.Errorf("granted after a wait of one and a half times its TTL of %v: %w", e.ttl, err)
	}
	e.free("after all", c, target)
	return nil
}

// waitedFor returns a lock that another had when it was asked for.
func (e *env) waitedFor(target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	e.Helper()
	held := e.mustTry(e.locker(), target)
	wait := e.start(e.ctx, e.locker(), target, opts...)
	e.pause()
	e.mustRelease(held)
	got, err := e.result(wait)
	if err != nil {
		return nil, fmt.Errorf("an Acquire of a target that became free: %w", err)
	}
	return got, nil
}

func expiresAfterAWait(e *env) error {
	target := e.target()
	held, err := e.waitedFor(target, swanlock.WithTTL(e.ttl))
	if err != nil {
		return err
	}
	next := e.start(e.ctx, e.locker(), target)
	if err := closedWithin(held.Done(), e.ttl+patience, "Done of a lock that was waited for, and not refreshed, was not closed"); err != nil {
		e.Fatalf("TTL %v: %v", e.ttl, err)
	}
	e.is("Err after the TTL", held.Err(), swanlock.ErrExpired)
	e.mustRelease(e.mustGet(next))
	return nil
}

func autoRefreshAfterAWait(e *env) error {
	b, target := e.locker(), e.target()
	held, err := e.waitedFor(target, swanlock.WithTTL(e.ttl), swanlock.WithAutoRefresh())
	if err != nil {
		return err
	}
	for end := time.Now().Add(2 * e.ttl); time.Now().Before(end); time.Sleep(e.ttl / 4) {
		if err := e.stillHeld(held, b); err != nil {
			return fmt.Errorf("auto-refresh after a wait, TTL %v: %w", e.ttl, err)
		}
	}
	if err := e.release(held); err != nil {
		return fmt.Errorf("auto-refresh after a wait, TTL %v: Release: %w", e.ttl, err)
	}
	return nil
}

// readersExpire refreshes one of two readers until the other has expired. A writer
// waits for both.
func readersExpire(e *env) error {
	a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()
	kept := e.mustTry(a, target, swanlock.WithShared(), swanlock.WithTTL(e.ttl))
	forgotten := e.mustTry(b, target, swanlock.WithShared(), swanlock.WithTTL(e.ttl))
	next := e.start(e.ctx, c, target)
	for start := time.Now(); forgotten.Err() == nil || time.Since(start) < 3*e.ttl/2; time.Sleep(e.ttl / 4) {
		if err := e.refresh(kept); err != nil {
			return fmt.Errorf("a reader with TTL %v, refreshed beside one that is not: %w", e.ttl, err)
		}
		if time.Since(start) > e.ttl+patience {
			e.Fatalf("a reader with TTL %v had not expired %v after its acquiring, while another was refreshed", e.ttl, time.Since(start))
		}
	}
	e.is("Err of the reader that was not refreshed", forgotten.Err(), swanlock.ErrExpired)
	e.is("Release of the reader that was not refreshed", forgotten.Release(e.ctx), swanlock.ErrExpired)
	waits := next.waits()
	if err := kept.Err(); err != nil {
		return fmt.Errorf("a reader with TTL %v, refreshed beside one that was not: %w", e.ttl, err)
	}
	if !waits {
		e.Fatalf("a writer's Acquire returned while a reader holds the target: %v", next.err)
	}
	if err := e.release(kept); err != nil {
		return fmt.Errorf("a reader with TTL %v, refreshed beside one that was not: Release: %w", e.ttl, err)
	}
	e.mustRelease(e.mustGet(next))
	last := e.mustTry(a, target, swanlock.WithShared(), swanlock.WithTTL(e.ttl))
	until, ok := last.Deadline()
	writer := e.mustAcquire(e.locker(), target)
	if early := time.Until(until); !ok || early > 0 {
		e.Errorf("a writer holds the target %v before a reader's deadline, %t", early, ok)
	}
	e.is("Err of the only reader, when a writer holds the target", last.Err(), swanlock.ErrExpired)
	e.holds("after a reader's TTL", writer, c)
	e.mustRelease(writer)
	return nil
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
	all := []swanlock.DistributedLock{held}
	if !e.lacks(shared) {
		reader, err := e.try(a, e.target(), swanlock.WithTTL(e.ttl), swanlock.WithAutoRefresh(), swanlock.WithShared())
		if err != nil {
			return fmt.Errorf("a reader's try with auto-refresh: %w", err)
		}
		all = append(all, reader)
	}
	for end := time.Now().Add(3 * e.ttl); time.Now().Before(end); time.Sleep(e.ttl / 4) {
		for _, held := range all {
			if err := e.stillHeld(held, b); err != nil {
				return fmt.Errorf("auto-refresh, TTL %v, shared %t: %w", e.ttl, held.Info().Shared, err)
			}
		}
	}
	for _, held := range all {
		if err := e.release(held); err != nil {
			return fmt.Errorf("auto-refresh, TTL %v: Release: %w", e.ttl, err)
		}
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
