package lease_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// A lock that its locker keeps is not refreshed by itself, and lives for as long as
// it is told so. It may have joined a lease that began before it.
func TestKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 9 * time.Second
		s := &server{ttl: ttl}
		s.refresh = func(context.Context) error {
			t.Error("it was refreshed")
			return nil
		}
		begun := time.Now()
		time.Sleep(time.Second)
		held, err := lease.Granted(t.Context(), lease.Request{Package: "test", Target: "a", Lease: ttl, Kept: true, Backend: backend{t, s}}, time.Now(), 0)
		if err != nil {
			t.Fatal(err)
		}
		extend := held.Extender()
		want := func(left time.Duration) {
			t.Helper()
			if deadline, ok := held.Deadline(); !ok || time.Until(deadline) != left {
				t.Errorf("Deadline: got %v from now, %t, want %v", time.Until(deadline), ok, left)
			}
		}
		if !extend(begun) {
			t.Error("extend of a lock that is held: got false")
		}
		want(8 * time.Second)
		time.Sleep(7 * time.Second)
		if !extend(time.Now()) {
			t.Error("extend of a lock that is held: got false")
		}
		want(ttl)

		// What a Refresh has overtaken takes nothing back.
		before := time.Now()
		time.Sleep(time.Second)
		s.refresh = func(context.Context) error { return nil }
		if err := held.Refresh(t.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		extend(before)
		want(ttl)
		s.refresh = func(context.Context) error { time.Sleep(time.Second); extend(time.Now()); return nil }
		if err := held.Refresh(t.Context()); err != nil {
			t.Errorf("Refresh: %v", err)
		}
		want(ttl)

		// One that begins earlier than the lock believed ends in time.
		held.Extender()(time.Now().Add(-8 * time.Second))
		start := time.Now()
		<-held.Done()
		if took := time.Since(start); took != time.Second {
			t.Errorf("Done was closed after %v, want 1s", took)
		}
		if extend(time.Now()) || !errors.Is(held.Err(), swanlock.ErrExpired) {
			t.Errorf("extend of a lock that expired: got true, or %v, want ErrExpired", held.Err())
		}
		_ = held.Release(t.Context())
	})
}

// TestRefreshUnanswered: a Refresh that gets no answer does not keep the refreshes
// in the background from their turn.
func TestRefreshUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl), swanlock.WithAutoRefresh())
		n := 0
		s.refresh = func(ctx context.Context) error {
			if n++; n == 1 {
				<-ctx.Done()
				return context.Cause(ctx)
			}
			s.begin()
			return nil
		}
		held := mustTry(t, s, r)
		if err := held.Refresh(t.Context()); err == nil || errors.Is(err, swanlock.ErrLost) {
			t.Errorf("the one without an answer: %v", err)
		}
		time.Sleep(10 * ttl)
		if err := held.Err(); err != nil {
			t.Errorf("after %d refreshes: %v", n, err)
		}
		if err := held.Release(t.Context()); err != nil {
			t.Error(err)
		}
	})
}
