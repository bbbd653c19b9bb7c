package etcdlock

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
)

// TestServerEndsFirst: the server is told the deadline of a request. If it gives up a
// moment before the caller does, it is the caller's deadline all the same.
func TestServerEndsFirst(t *testing.T) {
	s := startEtcd(t)
	l := newLocker(t, intercepted(t, s.Addr, func(method string, _ any, call func() error) error {
		if strings.HasSuffix(method, "/Txn") {
			return status.Error(codes.Unknown, "context deadline exceeded")
		}
		return call()
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if _, err := l.Acquire(ctx, "target"); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want ErrNotAcquired and DeadlineExceeded", err)
	}
}
