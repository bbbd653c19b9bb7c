//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"context"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
	"github.com/swanlake-io/swanlock/locktest"
)

func TestConformance(t *testing.T) {
	l := filelock.New(filelock.WithDir(t.TempDir()))
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return l },
		locktest.Fair(), locktest.Pooled("each lock has a file of its own"),
		locktest.KeptAlive("SwanLake's processes take a lock file for stale that is not refreshed"),
		locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) { must(t, l.Drop(held.Info().Target, true)) }),
		locktest.LosePlaces(func(t *testing.T, target string) { must(t, l.Drop(target, false)) }))
}

// TestReleaseWithNil: a Release with a nil context, which panics, leaves the lock as it
// was, and another Release frees it.
func TestReleaseWithNil(t *testing.T) {
	dir := t.TempDir()
	held, err := filelock.New(filelock.WithDir(dir)).TryAcquire(t.Context(), "t")
	must(t, err)
	func() {
		defer func() { _ = recover() }()
		var none context.Context
		_ = held.Release(none)
		t.Error("it did not panic")
	}()
	must(t, held.Err())
	must(t, held.Release(t.Context()))
	next, err := filelock.New(filelock.WithDir(dir)).TryAcquire(t.Context(), "t")
	must(t, err)
	must(t, next.Release(t.Context()))
}
