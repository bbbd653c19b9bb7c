// Package certmagiclock has certmagic lock by any swanlock.Locker, so that of
// several hosts one obtains or renews a certificate.
//
//	certmagic.Default.Storage = certmagiclock.Over(storage, certmagiclock.New(pool, "/certificates/"))
//
// A storage of your own embeds *Locks. A storage that is embedded beside it has
// Lock and Unlock too, and Go takes neither of two at the same depth: embed
// that one in a struct of its own, as Storage does.
package certmagiclock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

var (
	_ certmagic.Locker           = (*Locks)(nil)
	_ certmagic.TryLocker        = (*Locks)(nil)
	_ certmagic.LockLeaseRenewer = (*Locks)(nil)
)

// Locks are the locks of a certmagic.Storage: it is a certmagic.Locker,
// TryLocker and LockLeaseRenewer. All its methods may be called by several
// goroutines at once.
type Locks struct {
	locks  swanlock.Locker
	prefix string
	opts   []swanlock.Option

	mu   sync.Mutex
	held map[string][]*one // by name, oldest first
}

type one struct{ held swanlock.DistributedLock }

// New returns Locks whose targets are prefix and certmagic's names: hosts with
// one storage have one prefix. certmagic has several calls of one process wait
// for one name, so locks is a pglock.Pool or the like, not a Session, which
// refuses that. A lock with a TTL is refreshed in the background, also without
// swanlock.WithAutoRefresh: certmagic asks for leases of up to six hours.
func New(locks swanlock.Locker, prefix string, opts ...swanlock.Option) *Locks {
	opts = append(opts[:len(opts):len(opts)], func(o *swanlock.Options) { o.AutoRefresh = o.TTL > 0 })
	// Observe makes of nil a Locker whose acquires say so.
	return &Locks{locks: swanlock.Observe(locks), prefix: prefix, opts: opts, held: make(map[string][]*one)}
}

// Lock waits for the lock of name until ctx ends. Its errors are those of
// Acquire, and nothing is held after one.
func (l *Locks) Lock(ctx context.Context, name string) error {
	held, err := l.locks.Acquire(ctx, l.prefix+name, l.opts...)
	if err == nil {
		l.keep(name, held)
	}
	return err
}

// TryLock takes the lock of name if it is free, and reports whether it was. An
// error says that ctx has ended or that the locker failed; then nothing is held
// either.
func (l *Locks) TryLock(ctx context.Context, name string) (bool, error) {
	held, err := l.locks.TryAcquire(ctx, l.prefix+name, l.opts...)
	switch {
	case err == nil:
		l.keep(name, held)
		return true, nil
	case errors.Is(err, swanlock.ErrNotAcquired) && ctx.Err() == nil:
		return false, nil
	}
	return false, err
}

func (l *Locks) keep(name string, held swanlock.DistributedLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held[name] = append(l.held[name], &one{held})
}

// Unlock frees the lock of name, also when ctx has ended. A lock that was lost
// is free, so that is no error, as certmagic wants it.
func (l *Locks) Unlock(ctx context.Context, name string) error {
	_, held, err := l.oldest(name, true)
	if err != nil {
		return err
	}
	if err := held.Release(ctx); !errors.Is(err, swanlock.ErrLost) {
		return err
	}
	return nil
}

// RenewLockLease proves that the lock of name is held, for d and for longer,
// until Unlock, since it is refreshed in the background. A lock that was lost
// is taken again if it is free: certmagic looks for a certificate of another
// host before each attempt, and has no other way to go on. Otherwise, or if Unlock
// comes meanwhile, the error matches swanlock.ErrLost, and certmagic calls again
// before its next attempt.
func (l *Locks) RenewLockLease(ctx context.Context, name string, d time.Duration) error {
	k, held, err := l.oldest(name, false)
	if err != nil {
		return err
	}
	lost := held.Refresh(ctx)
	if !errors.Is(lost, swanlock.ErrLost) {
		return lost
	}
	// Some locks keep a part of what they were until they are released, as those of
	// package chain do.
	_ = held.Release(ctx)
	again, err := l.locks.TryAcquire(ctx, l.prefix+name, l.opts...)
	if err != nil {
		return errors.Join(lost, err)
	}
	if !l.replace(name, k, again) {
		return errors.Join(lost, again.Release(ctx))
	}
	return nil
}

// replace puts again in place of k's lock, and reports whether k is still locked.
func (l *Locks) replace(name string, k *one, again swanlock.DistributedLock) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	k.held = again
	return slices.Contains(l.held[name], k)
}

// oldest returns the lock of name, and forgets it if take is true. There is
// more than one only after a loss, and the oldest is the lost one: so Unlock
// does not release the lock of the next holder.
func (l *Locks) oldest(name string, take bool) (*one, swanlock.DistributedLock, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := l.held[name]
	if len(all) == 0 {
		return nil, nil, fmt.Errorf("certmagiclock: %s is not locked", quoted.Text(name))
	}
	if take {
		if l.held[name] = all[1:]; len(all) == 1 {
			delete(l.held, name)
		}
	}
	return all[0], all[0].held, nil
}

// A Storage is a certmagic.Storage with other locks than its own.
type Storage struct {
	*Locks
	data
}

type data struct{ certmagic.Storage }

// Over returns storage with locks in place of its own. All hosts must use it:
// its own locks, such as the files of certmagic.FileStorage, exclude nobody any
// more.
func Over(storage certmagic.Storage, locks *Locks) *Storage { return &Storage{locks, data{storage}} }
