package several_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/several"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func take(t *testing.T, l swanlock.Locker, target string) swanlock.DistributedLock {
	t.Helper()
	held, err := l.TryAcquire(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	return held
}

// TestManyParts: Done is closed when one of very many parts is lost.
func TestManyParts(t *testing.T) {
	l := memlock.New()
	parts := slices.Repeat([]swanlock.DistributedLock{take(t, l, "a")}, 1<<16)
	whole := several.New(swanlock.Info{}, append(parts, take(t, l, "b")))
	done := whole.Done()
	l.Lose("b", nil)
	<-done
	if err := whole.Release(t.Context()); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Release: %v", err)
	}
}

// TestLostRelease: when Release finds that a part was lost, Err says so from then
// on, although another part was released before.
func TestLostRelease(t *testing.T) {
	var whole *several.Lock
	var over error
	lost := &mocks.DistributedLock{
		ErrFunc: func() error { return over },
		ReleaseFunc: func(context.Context) error {
			<-whole.Done() // The other part is released.
			over = swanlock.ErrLost
			return over
		},
	}
	whole = several.New(swanlock.Info{}, []swanlock.DistributedLock{lost, take(t, memlock.New(), "b")})
	_ = whole.Done()
	if err := whole.Release(t.Context()); !errors.Is(err, swanlock.ErrLost) || whole.Err() != err {
		t.Errorf("Release returned %v, and Err returns %v", err, whole.Err())
	}
	if err := whole.Release(t.Context()); err != nil {
		t.Errorf("Release again: %v", err)
	}
}
