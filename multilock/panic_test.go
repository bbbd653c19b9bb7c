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
	"github.com/swanlake-io/swanlock/mocks"
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

// TestWhatIsSent: targets that are free are taken without a refresh, and the caller's
// list of them is left as it is.
func TestWhatIsSent(t *testing.T) {
	space := memlock.New()
	refreshes := 0
	counted := func(part swanlock.DistributedLock, err error) (swanlock.DistributedLock, error) {
		return &mocks.DistributedLock{InfoFunc: part.Info, ErrFunc: part.Err, ReleaseFunc: part.Release,
			RefreshFunc: func(ctx context.Context) error { refreshes++; return part.Refresh(ctx) }}, err
	}
	l := &mocks.Locker{TryAcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
		return counted(space.TryAcquire(ctx, target, opts...))
	}}
	for _, acquire := range []func(context.Context, swanlock.Locker, []string, ...swanlock.Option) (swanlock.DistributedLock, error){
		multilock.TryAcquire, multilock.Acquire,
	} {
		targets := []string{"f", "e", "d", "c", "b", "a"}
		held, err := acquire(t.Context(), l, targets, swanlock.WithTTL(time.Minute))
		must(t, err)
		must(t, held.Release(t.Context()))
		if !slices.Equal(targets, []string{"f", "e", "d", "c", "b", "a"}) {
			t.Errorf("the targets of the caller are %q now", targets)
		}
	}
	if refreshes > 0 {
		t.Errorf("%d refreshes", refreshes)
	}
}

// TestOneSpelling: of several spellings of a target all callers lock the same one, in
// whatever order they name them.
func TestOneSpelling(t *testing.T) {
	var got [2]string
	for i, targets := range [][]string{{"/a", "//a", "/a/."}, {"/a/.", "//a", "/a"}} {
		held, err := multilock.TryAcquire(t.Context(), memlock.New(), targets)
		must(t, err)
		got[i] = held.Info().Target
		must(t, held.Release(t.Context()))
	}
	if got[0] != got[1] {
		t.Errorf("locked %q and %q", got[0], got[1])
	}
}
