package chain_test

import (
	"log/slog"
	"runtime"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/chain"
	"github.com/swanlake-io/swanlock/filelock"
)

// TestDropped: a lock of several that is dropped without Release is released, as its
// parts would be, also if somebody has asked for Done, or observes it.
func TestDropped(t *testing.T) {
	before := slog.Default()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // for the warnings
	defer slog.SetDefault(before)
	newLocker := func(dir string) swanlock.Locker { return filelock.New(filelock.WithDir(dir)) }
	a, b := t.TempDir(), t.TempDir()
	locks := chain.New(newLocker(a), newLocker(b))
	observed := swanlock.Observe(locks, swanlock.LogTo(nil))
	for what, take := range map[string]func(*testing.T) <-chan struct{}{
		"as it is": func(t *testing.T) <-chan struct{} {
			_, err := locks.TryAcquire(t.Context(), "t")
			must(t, err)
			return nil
		},
		"with Done": func(t *testing.T) <-chan struct{} {
			held, err := locks.TryAcquire(t.Context(), "t")
			must(t, err)
			return held.Done()
		},
		"observed": func(t *testing.T) <-chan struct{} {
			_, err := observed.TryAcquire(t.Context(), "t")
			must(t, err)
			return nil
		},
	} {
		t.Run(what, func(t *testing.T) {
			done := take(t)
			other := chain.New(newLocker(a), newLocker(b))
			for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
				runtime.GC()
				held, err := other.TryAcquire(t.Context(), "t")
				if err == nil {
					must(t, held.Release(t.Context()))
					break
				}
				if time.Since(start) > 5*time.Second {
					t.Fatal(err)
				}
			}
			if done == nil {
				return
			}
			select {
			case <-done:
			case <-time.After(5 * time.Second):
				t.Error("Done is not closed")
			}
		})
	}
}
