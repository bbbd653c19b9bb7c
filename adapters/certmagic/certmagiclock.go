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
	"sync"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
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

	mu    sync.Mutex
	names map[string]*name // those that are locked here, or waited for
}

// A name is one of certmagic's. Only one call of this process has it from Lock to
// Unlock, also if its lock is lost meanwhile: Unlock and RenewLockLease cannot know
// for which of two they are called.
type name struct {
	turn   chan struct{} // has an element while the name is locked here
	wanted int           // the calls that have the turn, or wait for it
	held   *one          // nil: none
}

type one struct{ held swanlock.DistributedLock }

// New returns Locks whose targets are prefix and certmagic's names: hosts with
// one storage have one prefix. certmagic locks several names at once, and waits
// for one meanwhile, so locks is a pglock.Pool or the like, not a Session. A lock
// with a TTL is refreshed in the background, also without
// swanlock.WithAutoRefresh: certmagic asks for leases of up to six hours.
func New(locks swanlock.Locker, prefix string, opts ...swanlock.Option) *Locks {
	opts = append(opts[:len(opts):len(opts)], func(o *swanlock.Options) { o.AutoRefresh = o.TTL > 0 })
	// Observe makes of nil a Locker whose acquires say so.
	return &Locks{locks: swanlock.Observe(locks), prefix: prefix, opts: opts, names: make(map[string]*name)}
}

// Lock waits for the lock of name until ctx ends. Its errors are those of
// Acquire, and nothing is held after one.
func (l *Locks) Lock(ctx context.Context, name string) error {
	n := l.want(name)
	select {
	case n.turn <- struct{}{}:
	case <-ctx.Done():
		l.leave(name, n)
		return fmt.Errorf("certmagiclock: lock %s: %w", quoted.Text(name), lease.CutShort(ctx, nil))
	}
	return l.lock(ctx, name, n, l.locks.Acquire)
}

// TryLock takes the lock of name if it is free, and reports whether it was. An
// error says that ctx has ended or that the locker failed; then nothing is held
// either.
func (l *Locks) TryLock(ctx context.Context, name string) (bool, error) {
	n := l.want(name)
	select {
	case n.turn <- struct{}{}:
	default:
		l.leave(name, n)
		return false, context.Cause(ctx)
	}
	err := l.lock(ctx, name, n, l.locks.TryAcquire)
	if errors.Is(err, swanlock.ErrNotAcquired) && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// want returns the name, which stays until leave.
func (l *Locks) want(key string) *name {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.names[key]
	if n == nil {
		n = &name{turn: make(chan struct{}, 1)}
		l.names[key] = n
	}
	n.wanted++
	return n
}

func (l *Locks) leave(key string, n *name) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.wanted--; n.wanted == 0 {
		delete(l.names, key)
	}
}

// lock takes the lock of a name whose turn the caller has.
func (l *Locks) lock(ctx context.Context, name string, n *name, acquire func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error)) error {
	held, err := acquire(ctx, l.prefix+name, l.opts...)
	if err != nil {
		<-n.turn
		l.leave(name, n)
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	n.held = &one{held}
	return nil
}

// Unlock frees the lock of name, also when ctx has ended. As certmagic wants it,
// an error says that the lock is still held, and Unlock may be called again, as by
// certmagic.CleanUpOwnLocks. A lock that was lost is free, and so is one whose
// release could not be written to the audit.
func (l *Locks) Unlock(ctx context.Context, name string) error {
	n, k, err := l.locked(name, true)
	if err != nil {
		return err
	}
	err = k.held.Release(ctx)
	if err != nil && k.held.Err() == nil { // Nothing was sent.
		l.swap(n, nil, k)
		return err
	}
	<-n.turn
	l.leave(name, n)
	return nil
}

// RenewLockLease proves that the lock of name is held, for d and for longer,
// until Unlock, since it is refreshed in the background. A lock that was lost
// is taken again if it is free: certmagic looks for a certificate of another
// host before each attempt, and has no other way to go on. Otherwise, or if Unlock
// comes meanwhile, the error matches swanlock.ErrLost, and certmagic calls again
// before its next attempt.
func (l *Locks) RenewLockLease(ctx context.Context, name string, d time.Duration) error {
	n, k, err := l.locked(name, false)
	if err != nil {
		return err
	}
	lost := k.held.Refresh(ctx)
	if lost == nil || !errors.Is(k.held.Err(), swanlock.ErrLost) { // The cause of ctx may match ErrLost, too.
		return lost
	}
	// Some locks keep a part of what they were until they are released, as those of
	// package chain do.
	_ = k.held.Release(ctx)
	again, err := l.locks.TryAcquire(ctx, l.prefix+name, l.opts...)
	if err != nil {
		return errors.Join(lost, err)
	}
	if !l.swap(n, k, &one{again}) {
		return errors.Join(lost, again.Release(ctx))
	}
	return nil
}

// locked returns the lock of a name that is locked here. If take is true, the name
// has none from then on, and a RenewLockLease under way gives back what it takes.
func (l *Locks) locked(key string, take bool) (*name, *one, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.names[key]
	if n == nil || n.held == nil {
		return nil, nil, fmt.Errorf("certmagiclock: %s is not locked", quoted.Text(key))
	}
	k := n.held
	if take {
		n.held = nil
	}
	return n, k, nil
}

// swap puts k in place of was, and reports whether was still was the lock of n.
func (l *Locks) swap(n *name, was, k *one) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n.held != was {
		return false
	}
	n.held = k
	return true
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
