package filelock_test

import (
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
	"github.com/swanlake-io/swanlock/locktest"
)

func TestConformance(t *testing.T) {
	dir := t.TempDir()
	locktest.Run(t, func(t *testing.T) swanlock.Locker { return filelock.New(filelock.WithDir(dir)) },
		locktest.Fair(), locktest.Pooled("each lock has a file of its own"))
}
