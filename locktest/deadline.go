package locktest

import (
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
)

var deadlineCases = []testCase{
	{
		name: "DeadlineWithoutTTL",
		why:  "a holder that plans by a deadline which there is not stops for no reason, or counts on one that means nothing",
		run: func(e *env) {
			held := e.mustTry(e.locker(), e.target())
			switch deadline, ok := held.Deadline(); {
			case e.keptAlive == nil && ok:
				e.Errorf("Deadline of a lock without a TTL: got %v, true; want false", deadline)
			case e.keptAlive != nil && (!ok || !deadline.After(time.Now())):
				e.Errorf("Deadline of a lock that is kept alive: got %v, %t; want it in the future", deadline, ok)
			}
			e.mustRelease(held)
		},
	},
	{
		name:  "Deadline",
		why:   "a holder begins its last step if there is time for it until the deadline: another one that holds the lock before then works beside it",
		needs: []feature{ttl},
		run:   func(e *env) { e.steady(func() error { return deadline(e) }) },
	},
	{
		name:  "DeadlineOfAnOddTTL",
		why:   "a server that counts in whole seconds and rounds down frees the lock while its holder still counts on it",
		needs: []feature{ttl},
		run: func(e *env) {
			a, b, target, odd := e.locker(), e.locker(), e.target(), e.ttl*19/10
			held := e.mustTry(a, target, swanlock.WithTTL(odd))
			last, ok := held.Deadline()
			if now := time.Now(); !ok || last.After(now.Add(odd)) {
				e.Fatalf("Deadline of a lock with a TTL of %v: got %v from now, %t", odd, last.Sub(now), ok)
			}
			next := e.mustAcquire(b, target)
			if early := time.Until(last); early > 0 {
				e.Errorf("TTL %v: another locker holds the target %v before its holder's deadline", odd, early)
			}
			e.mustRelease(next)
		},
	},
	{
		name:  "DeadlineMovesOn",
		why:   "a holder whose lock is refreshed in the background must see that it has time, or it stops although nothing is wrong",
		needs: []feature{autoRefresh},
		run:   func(e *env) { e.steady(func() error { return deadlineMovesOn(e) }) },
	},
}

// deadlineIn checks the deadline of a lock that was acquired or refreshed
// between before and after. It may be sooner than the TTL says, as on a session
// that was told less, but not by much.
func (e *env) deadlineIn(when string, held swanlock.DistributedLock, before, after time.Time) time.Time {
	e.Helper()
	got, ok := held.Deadline()
	switch {
	case !ok:
		e.Fatalf("%s: Deadline of a lock with a TTL of %v: got false", when, e.ttl)
	case got.After(after.Add(e.ttl)):
		e.Fatalf("%s: the deadline is %v after the call returned, its TTL is %v", when, got.Sub(after), e.ttl)
	case got.Before(before.Add(e.ttl / 2)):
		e.Fatalf("%s: the deadline is %v after the call was made, its TTL is %v", when, got.Sub(before), e.ttl)
	}
	return got
}

func deadline(e *env) error {
	a, b, target := e.locker(), e.locker(), e.target()
	before := time.Now()
	held := e.mustTry(a, target, swanlock.WithTTL(e.ttl))
	first := e.deadlineIn("acquired", held, before, time.Now())

	time.Sleep(e.ttl / 4)
	before = time.Now()
	if err := e.refresh(held); err != nil {
		return fmt.Errorf("a Refresh a quarter of a TTL of %v after the grant: %w", e.ttl, err)
	}
	after := time.Now()
	if got := e.deadlineIn("refreshed", held, before, after); !got.After(first) {
		e.Errorf("refreshed: the deadline is %v later than before, want it to be later", got.Sub(first))
	}
	time.Sleep(e.ttl / 8)
	if err := held.Refresh(e.ended()); err != nil {
		e.deadlineIn("after a Refresh that was cut short", held, before, after)
	}

	// The last deadline that the holder sees while it has the lock.
	var last time.Time
	next := e.start(e.ctx, b, target)
	for ; next.waits(); time.Sleep(e.ttl / 64) {
		got, ok := held.Deadline()
		if held.Err() == nil && ok {
			last = got
		}
		if time.Since(after) > e.freeAfter(e.ttl)+patience {
			e.Fatalf("a lock with a TTL of %v was not free %v after its last refresh", e.ttl, time.Since(after))
		}
	}
	granted := time.Now()
	if granted.Before(last) {
		e.Errorf("another locker holds the target %v before its holder's deadline", last.Sub(granted))
	}
	e.mustRelease(e.mustGet(next))
	if took := granted.Sub(after); took > e.freeAfter(e.ttl)+e.ttl/2+2*time.Second {
		return fmt.Errorf("a waiter got the lock %v after its last refresh, its TTL is %v: see FreesLate", took, e.ttl)
	}
	return nil
}

func deadlineMovesOn(e *env) error {
	held := e.mustTry(e.locker(), e.target(), swanlock.WithTTL(e.ttl), swanlock.WithAutoRefresh())
	for end := time.Now().Add(2 * e.ttl); time.Now().Before(end); time.Sleep(e.ttl / 8) {
		before := time.Now()
		got, ok := held.Deadline()
		if err := held.Err(); err != nil {
			return fmt.Errorf("auto-refresh, TTL %v: the lock was lost: %w", e.ttl, err)
		}
		if !ok || got.Before(before) {
			e.Fatalf("auto-refresh, TTL %v: Deadline while the lock is held: got %v from now, %t; want it in the future",
				e.ttl, got.Sub(before), ok)
		}
		if got.After(time.Now().Add(e.ttl)) {
			e.Fatalf("auto-refresh, TTL %v: the deadline is %v from now", e.ttl, got.Sub(before))
		}
	}
	if err := e.release(held); err != nil {
		return fmt.Errorf("auto-refresh, TTL %v: Release: %w", e.ttl, err)
	}
	return nil
}
