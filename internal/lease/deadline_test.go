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

// TestSameDeadline: a call that the caller's deadline cuts short has not ended before
// the caller's own context has, so that its error tells of that.
func TestSameDeadline(t *testing.T) {
	cause := errors.New("too slow")
	hang := func(ctx context.Context) error { <-ctx.Done(); return errors.New("cut short") }
	for range 50 { // Timers that go off at the same time do so in any order.
		synctest.Test(t, func(t *testing.T) {
			s, r := newServer(t, swanlock.WithTTL(ttl))
			ctx, cancel := context.WithTimeoutCause(t.Context(), time.Second, cause)
			defer cancel()
			_, err := lease.Try(ctx, r, func(ctx context.Context) (uint64, error) { return 0, hang(ctx) })
			is(t, err, swanlock.ErrNotAcquired, cause)

			held := mustTry(t, s, r)
			s.refresh = hang
			ctx, cancel = context.WithTimeoutCause(t.Context(), time.Second, cause)
			defer cancel()
			is(t, held.Refresh(ctx), cause)
			if err := held.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
