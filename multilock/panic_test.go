package multilock_test

import (
	"cmp"
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/multilock"
)

// panics is a Locker with a bug: it panics when one target is waited for.
type panics struct{ swanlock.Locker }

func (panics) Acquire(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	panic("a bug")
}

// TestPanic: when a locker panics, what it has granted is free again.
func TestPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space := memlock.New()
		targets := []string{"a", "b"}
		slices.SortFunc(targets, func(a, b string) int { return cmp.Compare(swanlock.KeyOf(a), swanlock.KeyOf(b)) })
		other, err := space.Session().TryAcquire(t.Context(), targets[1])
		if err != nil {
			t.Fatal(err)
		}
		func() {
			defer func() { _ = recover() }()
			_, _ = multilock.Acquire(t.Context(), panics{space}, targets, swanlock.WithTTL(time.Second))
		}()
		held, err := space.Session().TryAcquire(t.Context(), targets[0])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = held.Release(t.Context()), other.Release(t.Context())
	})
}
