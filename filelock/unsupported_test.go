//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package filelock_test

import (
	"errors"
	"testing"

	"github.com/swanlake-io/swanlock/filelock"
)

// TestUnsupported: where there is no flock nothing is locked.
func TestUnsupported(t *testing.T) {
	if _, err := filelock.New(filelock.WithDir(t.TempDir())).TryAcquire(t.Context(), "t"); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("got %v, want errors.ErrUnsupported", err)
	}
}
