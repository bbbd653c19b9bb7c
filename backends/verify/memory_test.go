package verify

import (
	"context"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/verify"
	"github.com/swanlake-io/swanlock/memlock"
)

// memory is what all clients of the only worker lock in. It is not killed: its
// locks, and the last fence, would go with it.
var memory = memlock.New()

func startMemory(_ *testing.T, b *verify.Backend) {
	b.Shared, b.Workers, b.Clients = true, 1, 8
}

func openMemory(context.Context, string) (swanlock.Locker, func(), error) {
	return memory, func() {}, nil
}
