// Package several makes one lock of several: it is held while all of them are.
package several

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"time"
	"weak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/after"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

// A Lock is one lock that is made of others, its parts. It is a
// swanlock.DistributedLock. When one part is lost, it is lost; the other parts
// stay held until Release, so that nobody else begins while the holder is still
// about to stop.
type Lock struct {
	info    swanlock.Info
	targets []string
	parts   []swanlock.DistributedLock
	*fate
}

// A fate is what becomes of a Lock. Goroutines refer to it, and not to the Lock nor to
// its parts, so that the garbage collector can find a Lock that was dropped: its parts
// are released then, if their lockers do that.
type fate struct {
	mu       sync.Mutex
	err      error // why it is over; nil while it is held
	released bool
	watched  bool // a goroutine waits for the end of a part
	done     chan struct{}
	after    after.Funcs
}

// New returns the lock of parts, which are held; info is what its own Info
// returns, but for the time of its grant, which is that of the last part. targets
// is what it locks, if that is not the one that info names.
func New(info swanlock.Info, parts []swanlock.DistributedLock, targets ...string) *Lock {
	if len(targets) == 0 {
		targets = []string{info.Target}
	}
	for _, p := range parts {
		if at := p.Info().AcquiredAt; at.After(info.AcquiredAt) {
			info.AcquiredAt = at
		}
	}
	return &Lock{info, targets, parts, &fate{done: make(chan struct{})}}
}

// Parts returns the locks that it is made of.
func (l *Lock) Parts() []swanlock.DistributedLock { return slices.Clone(l.parts) }

// Targets returns the targets that it locks: swanlock.Held goes by them.
func (l *Lock) Targets() []string { return slices.Clone(l.targets) }

// Info returns what was locked, and how.
func (l *Lock) Info() swanlock.Info { return l.info }

// Err returns nil while all parts are held.
func (l *Lock) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.errLocked()
}

func (l *Lock) errLocked() error {
	for _, p := range l.parts {
		if l.err != nil {
			break
		}
		if err := p.Err(); err != nil {
			l.endLocked(named(p, err))
		}
	}
	return l.err
}

func (f *fate) endLocked(err error) {
	if f.err == nil {
		close(f.done)
		f.after.Call(err)
	}
	f.err = err
}

// named returns err with the name of the part that it is about.
func named(p swanlock.DistributedLock, err error) error {
	return fmt.Errorf("%s: %w", quoted.Text(p.Info().Target), err)
}

// Done returns a channel that is closed when the first part ends.
func (l *Lock) Done() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.errLocked() == nil {
		l.watchLocked()
	}
	return l.done
}

// AfterDone calls f, in a goroutine of its own, when Done is closed, with what Err
// returns then. stop prevents that, and reports whether it did. swanlock.Observe uses
// it.
func (l *Lock) AfterDone(f func(err error)) (stop func() bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.errLocked(); err != nil {
		go f(err)
		return func() bool { return false }
	}
	l.watchLocked()
	remove, fate := l.after.Add(f), l.fate
	return func() bool {
		fate.mu.Lock()
		defer fate.mu.Unlock()
		return remove()
	}
}

// maxWatched is how many parts one goroutine waits for. With one channel more,
// reflect.Select takes 65,536 at most.
const maxWatched = 1 << 15

// watchLocked has goroutines wait for the end of a part.
func (l *Lock) watchLocked() {
	if l.watched {
		return
	}
	l.watched = true
	for parts := range slices.Chunk(l.parts, maxWatched) {
		ends := []reflect.SelectCase{{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(l.done)}}
		for _, p := range parts {
			ends = append(ends, reflect.SelectCase{Dir: reflect.SelectRecv, Chan: reflect.ValueOf(p.Done())})
		}
		go l.fate.watch(weak.Make(l), ends)
	}
}

var errDropped = fmt.Errorf("%w: dropped without Release", swanlock.ErrLost)

// watch waits for one of ends, and has of, which f is of, look at its parts.
func (f *fate) watch(of weak.Pointer[Lock], ends []reflect.SelectCase) {
	reflect.Select(ends)
	if l := of.Value(); l != nil {
		l.Err()
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.endLocked(errDropped)
	}
}

// Deadline returns the first deadline of the parts.
func (l *Lock) Deadline() (first time.Time, ok bool) { return deadline(l.parts) }

func deadline(locks []swanlock.DistributedLock) (first time.Time, ok bool) {
	for _, p := range locks {
		if d, has := p.Deadline(); has && (!ok || d.Before(first)) {
			first, ok = d, true
		}
	}
	return first, ok
}

// Refresh refreshes all parts, at the same time.
func (l *Lock) Refresh(ctx context.Context) error {
	if err := l.Err(); err != nil {
		return err
	}
	errs := make([]error, len(l.parts))
	Each(len(l.parts), func(i int) {
		if err := l.parts[i].Refresh(ctx); err != nil {
			errs[i] = named(l.parts[i], err)
		}
	})
	if err := l.Err(); err != nil {
		return err
	}
	return errors.Join(errs...)
}

// Release frees the parts, the last first. If a part is held all the same, because
// nothing could be sent for it (pglock.ErrBusy), it may be called again.
func (l *Lock) Release(ctx context.Context) error {
	l.mu.Lock()
	if l.released {
		l.mu.Unlock()
		return nil
	}
	l.released = true
	over := l.errLocked()
	l.mu.Unlock()

	returned := false
	defer func() {
		if !returned { // A part has panicked, and others may still be held.
			l.mu.Lock()
			l.released = false
			l.mu.Unlock()
		}
	}()
	err := Release(ctx, l.parts)
	returned = true
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && slices.ContainsFunc(l.parts, func(p swanlock.DistributedLock) bool { return p.Err() == nil }) {
		l.released = false // Nothing was sent for that part, so Release may be called again.
		return err
	}
	switch {
	case errors.Is(over, swanlock.ErrLost):
		return over
	case errors.Is(err, swanlock.ErrLost):
		// The release of another part may have been noted before.
		l.endLocked(err)
	case l.err == nil:
		l.endLocked(swanlock.ErrReleased)
	}
	return err
}

// Release frees locks, the last first, and returns their errors.
func Release(ctx context.Context, locks []swanlock.DistributedLock) error {
	var errs []error
	for _, p := range slices.Backward(locks) {
		if err := p.Release(ctx); err != nil {
			errs = append(errs, named(p, err))
		}
	}
	return errors.Join(errs...)
}

// GiveBack frees locks that were taken in vain, at once: they are released all at
// the same time, so that a server that does not answer is waited for once, and with
// a context that has ended, so swanlock.WithMinHold does not keep them. One that was
// lost is free as well, so there is no error.
func GiveBack(ctx context.Context, locks []swanlock.DistributedLock) {
	if len(locks) == 0 {
		return
	}
	ctx, cancel := context.WithCancel(ctx)
	cancel()
	Each(len(locks), func(i int) { _ = locks[i].Release(ctx) })
}

// Granted returns what a locker has answered, and an error instead of neither a lock
// nor an error, so that what is held beside it is given back.
func Granted(held swanlock.DistributedLock, err error) (swanlock.DistributedLock, error) {
	if held == nil && err == nil {
		err = errors.New("the locker returned neither a lock nor an error")
	}
	return held, err
}

// ErrLostMeanwhile says that a part was lost while another was acquired. Nothing is
// held, and the caller may begin anew.
var ErrLostMeanwhile = fmt.Errorf("%w: a part of the lock was lost while another was acquired", swanlock.ErrNotAcquired)

// Renew is called once, when l has been put together of locks that were acquired
// with o, one after the other: it finds what is known to be lost. If one was waited
// for, it also refreshes them if they have a TTL, so that all TTLs begin now. If it
// fails, nothing is held.
func (l *Lock) Renew(ctx context.Context, o swanlock.Options, waited bool) error {
	isHeld := false
	defer func() {
		if !isHeld { // A part was lost, or has panicked.
			GiveBack(ctx, l.parts)
		}
	}()
	err := l.Err()
	if err == nil && waited && o.TTL > 0 && len(l.parts) > 1 {
		err = l.Refresh(ctx)
	}
	switch {
	case err == nil:
		isHeld = true
	case l.Err() != nil:
		return ErrLostMeanwhile
	}
	return Failed(ctx, err)
}

// Failed returns err, with which an acquire has failed, and tells of the end of ctx if
// that has ended: a locker that had answered before does not.
func Failed(ctx context.Context, err error) error {
	told := errors.Is(err, swanlock.ErrNotAcquired) && errors.Is(err, context.Cause(ctx))
	if err == nil || ctx.Err() == nil || told || errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return lease.CutShort(ctx, err)
}

// together is how many calls are made at the same time: a Pool's batch holds as
// many.
const together = 512

// Each calls f with the numbers below n, many at the same time, so that a Pool
// sends what they ask for in one round trip. If calls panic, or end their goroutines,
// Each does as one of them, when all have ended.
func Each(n int, f func(i int)) {
	if n == 1 {
		f(0)
		return
	}
	var wg sync.WaitGroup
	room := make(chan struct{}, together)
	fates := make(chan any, n)
	for i := range n {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			Caught(func() { f(i) }, func(fate any) {
				if fate != nil {
					fates <- fate
				}
			})
		})
	}
	wg.Wait()
	if len(fates) > 0 {
		Repeat(<-fates)
	}
}

// An exited is the fate of a call that has ended its goroutine.
type exited struct{}

// Caught calls f, and then tell with its fate: nil if f has returned. Any other is for
// the goroutine that waits for f to Repeat: nobody could recover in this one what f
// panicked with, and a runtime.Goexit, as by t.FailNow in a mock, would be waited for
// in vain.
func Caught(f func(), tell func(fate any)) {
	var fate any = exited{}
	defer func() {
		if p := recover(); p != nil {
			fate = p
		}
		tell(fate)
	}()
	f()
	fate = nil
}

// Repeat panics, or ends this goroutine, as the call did whose fate Caught has told.
func Repeat(fate any) {
	switch fate.(type) {
	case nil:
	case exited:
		runtime.Goexit()
	default:
		panic(fate)
	}
}
