package certmagiclock_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	certmagiclock "github.com/swanlake-io/swanlock/adapters/certmagic"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/memlock"
)

// TestRenewWhileAnotherWaits: the lock is lost while another call of the process waits
// for the name. If that got the lock, neither of the two could renew it, and certmagic
// would try for a month.
func TestRenewWhileAnotherWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := memlock.New()
		l := certmagiclock.New(locks, "p/")
		must(t, l.Lock(t.Context(), "n"))
		second := make(chan error, 1)
		go func() {
			err := l.Lock(t.Context(), "n")
			if err == nil {
				err = errors.Join(l.RenewLockLease(t.Context(), "n", time.Hour), l.Unlock(t.Context(), "n"))
			}
			second <- err
		}()
		synctest.Wait()
		locks.Lose("p/n", nil)
		synctest.Wait()
		if err := l.RenewLockLease(t.Context(), "n", time.Hour); err != nil {
			t.Errorf("the first renews: %v", err)
		}
		must(t, l.Unlock(t.Context(), "n"))
		if err := <-second; err != nil {
			t.Errorf("the second: %v", err)
		}
	})
}

// TestUnlockAgain: an Unlock that could not free the lock may be called again, as
// certmagic.CleanUpOwnLocks does.
func TestUnlockAgain(t *testing.T) {
	locks := memlock.New()
	l := certmagiclock.New(testserver.BusyOnce(locks), "p/")
	must(t, l.Lock(t.Context(), "n"))
	if err := l.Unlock(t.Context(), "n"); !errors.Is(err, testserver.ErrBusy) {
		t.Errorf("got %v, want %v", err, testserver.ErrBusy)
	}
	must(t, l.RenewLockLease(t.Context(), "n", time.Hour))
	must(t, l.Unlock(t.Context(), "n"))
	held, err := locks.TryAcquire(t.Context(), "p/n")
	must(t, err)
	must(t, held.Release(t.Context()))
}

// An unwrittenLocker's locks are free after Release, which fails all the same, as
// where the audit cannot be written.
type unwrittenLocker struct{ swanlock.Locker }

type unwrittenLock struct{ swanlock.DistributedLock }

func (l unwrittenLocker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	held, err := l.Locker.Acquire(ctx, target, opts...)
	return unwrittenLock{held}, err
}

func (l unwrittenLock) Release(ctx context.Context) error {
	return errors.Join(l.DistributedLock.Release(ctx), errors.New("not written"))
}

// TestUnlockFreed: Unlock fails only if the lock is still held, since certmagic would
// unlock it again.
func TestUnlockFreed(t *testing.T) {
	l := certmagiclock.New(unwrittenLocker{memlock.New()}, "p/")
	must(t, l.Lock(t.Context(), "n"))
	must(t, l.Unlock(t.Context(), "n"))
}

// TestRenewUnderLostContext: the context has ended because another lock was lost. That
// is no loss of this one, which is still held.
func TestRenewUnderLostContext(t *testing.T) {
	locks := memlock.New()
	l := certmagiclock.New(locks, "p/")
	must(t, l.Lock(t.Context(), "n"))
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(swanlock.ErrLost)
	if err := l.RenewLockLease(ctx, "n", time.Hour); err == nil {
		t.Error("renewed under a context that has ended")
	}
	if held, err := locks.TryAcquire(t.Context(), "p/n"); err == nil {
		t.Error("the lock was given up")
		must(t, held.Release(t.Context()))
	}
	must(t, l.Unlock(t.Context(), "n"))
}

// TestOptions: a lock has the options that were given, and one with a TTL is refreshed
// without being asked to.
func TestOptions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := memlock.New()
		l := certmagiclock.New(locks, "p/", swanlock.WithOwner("me"), swanlock.WithTTL(time.Second))
		must(t, l.Lock(t.Context(), "n"))
		time.Sleep(time.Minute)
		if _, err := locks.TryAcquire(t.Context(), "p/n"); err == nil || !strings.Contains(err.Error(), `held by "me"`) {
			t.Errorf("after a minute: got %v, want that it is held by me", err)
		}
		must(t, l.Unlock(t.Context(), "n"))
	})
}

// TestNamesAreForgotten: nothing is kept of a name that is locked no more: strangers may
// choose the names.
func TestNamesAreForgotten(t *testing.T) {
	l := certmagiclock.New(memlock.New(), "p/")
	heap := func() int64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap()
	for i := range 200 {
		name := fmt.Sprintf("%010000d", i)
		must(t, l.Lock(t.Context(), name))
		if ok, err := l.TryLock(t.Context(), name); ok || err != nil {
			t.Errorf("TryLock of what is locked: %t, %v", ok, err)
		}
		must(t, l.Unlock(t.Context(), name))
	}
	if grown := heap() - before; grown > 1_000_000 {
		t.Errorf("%d bytes of 2,000,000 are still there", grown)
	}
	runtime.KeepAlive(l)
}

// TestHeldElsewhere: TryLock of what another host holds is no error. A lock that was lost
// and that another host has cannot be renewed.
func TestHeldElsewhere(t *testing.T) {
	locks := memlock.New()
	l := certmagiclock.New(locks, "p/")
	must(t, l.Lock(t.Context(), "n"))
	locks.Lose("p/n", nil)
	other, err := locks.TryAcquire(t.Context(), "p/n")
	must(t, err)
	if err := l.RenewLockLease(t.Context(), "n", time.Hour); !errors.Is(err, swanlock.ErrLost) || !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("RenewLockLease: got %v, want ErrLost, and why it was not taken again", err)
	}
	must(t, l.Unlock(t.Context(), "n"))
	if ok, err := l.TryLock(t.Context(), "n"); ok || err != nil {
		t.Errorf("TryLock: got %t, %v", ok, err)
	}
	must(t, other.Release(t.Context()))
}
