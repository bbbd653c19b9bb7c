package main

import (
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// A wait that its own context cut short is no lock that is held elsewhere,
// though both are swanlock.ErrNotAcquired.
func TestContextEndsTheWait(t *testing.T) {
	t.Setenv("SWANLAKE_LOCK_POSTGRES_CONNECTION", migrated(t))
	defer hold(t, "context", false)()
	cause := errors.New("told to stop")
	for name, o := range map[string]runOptions{
		"wait":    {target: "context", heldCode: 5, wait: true},
		"timeout": {target: "context", heldCode: 5, timeout: time.Hour},
	} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 300*time.Millisecond, cause)
		h, err := acquire(ctx, io.Discard, o)
		cancel()
		f, ok := errors.AsType[*failure](err)
		if h != nil || !ok || f.code != exitFailed || !errors.Is(err, cause) || strings.Contains(err.Error(), "elsewhere") {
			t.Errorf("%s: got %v, %v (%+v), want a failure of code %d with the context's cause", name, h, err, f, exitFailed)
		}
	}
}
