package memlock

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/after"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

// A space is what a server is to other lockers: all lines, under one mutex.
type space struct {
	mu    sync.Mutex
	lines map[swanlock.Key]*line // those with a holder or a waiter
	fence uint64                 // the last one given
}

// A line has one target's holders, and its waiters in the order in which they
// came.
type line struct {
	key     swanlock.Key
	holders []*lock
	waiters []*lock
}

// settle ends the holders whose TTL ran out, and grants the lock to the waiters
// that are next. It must be called after each change of ln, with s.mu held, and
// never with a line that s has dropped: a lock that is held or waits keeps its
// line there.
func (s *space) settle(ln *line) {
	now := time.Now()
	for _, k := range slices.Clone(ln.holders) {
		if k.info.TTL > 0 && !now.Before(k.deadline) {
			k.end(fmt.Errorf("memlock: %s: %w", quoted.Text(k.info.Target), swanlock.ErrExpired))
		}
	}
	var still []*lock
	for _, k := range ln.waiters {
		switch {
		case ln.heldBy(k.locker):
			k.refused = fmt.Errorf("memlock: %s: %w", quoted.Text(k.info.Target), swanlock.ErrAlreadyHeld)
			close(k.answered)
		case len(still) == 0 && ln.admits(k):
			k.start(now)
		default:
			still = append(still, k)
		}
	}
	ln.waiters = still
	if len(ln.holders) == 0 && len(ln.waiters) == 0 {
		delete(s.lines, ln.key)
	}
}

// leave takes k, which waits, out of its line.
func (s *space) leave(k *lock) {
	k.line.waiters = slices.DeleteFunc(k.line.waiters, func(w *lock) bool { return w == k })
	s.settle(k.line) // A writer that leaves may have kept out readers.
}

func (ln *line) admits(k *lock) bool {
	return len(ln.holders) == 0 || k.opts.Shared && ln.holders[0].opts.Shared
}

func (ln *line) heldBy(l *Locker) bool {
	return l.one && slices.ContainsFunc(ln.holders, func(k *lock) bool { return k.locker == l })
}

// A lock waits in its line until it is answered: granted or refused. Its info
// does not change once it is granted; the rest is guarded by space.mu.
type lock struct {
	space    *space
	line     *line
	locker   *Locker
	opts     swanlock.Options
	answered chan struct{}
	refused  error // it never was held
	info     swanlock.Info

	deadline time.Time
	timer    *time.Timer // nil without a TTL
	done     chan struct{}
	after    after.Funcs
	err      error // why it is no longer held
	released bool
}

// newLock returns a lock that l is asked for, and that is not in line yet.
func newLock(l *Locker, ln *line, target string, o swanlock.Options) *lock {
	return &lock{space: l.space, line: ln, locker: l, opts: o,
		info:     swanlock.Info{Target: target, Owner: o.Owner, TTL: o.TTL, Shared: o.Shared},
		answered: make(chan struct{}), done: make(chan struct{})}
}

func (k *lock) waiting() bool {
	select {
	case <-k.answered:
		return false
	default:
		return true
	}
}

// start grants k.
func (k *lock) start(now time.Time) {
	k.info.AcquiredAt = now
	if k.opts.Fence {
		k.space.fence++
		k.info.Fence = k.space.fence
	}
	if k.info.TTL > 0 {
		k.deadline = now.Add(k.info.TTL)
		k.timer = time.AfterFunc(k.nextTick(now), k.tick)
	}
	k.line.holders = append(k.line.holders, k)
	close(k.answered)
}

// end makes k no longer held. The caller settles the line afterwards, so that
// Done is closed before anybody else holds it.
func (k *lock) end(err error) {
	k.err = err
	if k.timer != nil {
		k.timer.Stop()
	}
	k.line.holders = slices.DeleteFunc(k.line.holders, func(h *lock) bool { return h == k })
	close(k.done)
	k.after.Call(err)
}

// tick is called by the timer. Refresh does not touch the timer, so a tick that
// finds time left sets it again.
func (k *lock) tick() {
	k.space.mu.Lock()
	defer k.space.mu.Unlock()
	if k.ended() != nil {
		return
	}
	now := time.Now()
	if k.opts.AutoRefresh {
		k.deadline = now.Add(k.info.TTL)
	}
	k.timer.Reset(k.nextTick(now))
}

func (k *lock) nextTick(now time.Time) time.Duration {
	if k.opts.AutoRefresh {
		return k.info.TTL / 3
	}
	return k.deadline.Sub(now)
}

// ended returns why k is no longer held, by the clock, or nil while it is.
func (k *lock) ended() error {
	if k.err == nil {
		k.space.settle(k.line)
	}
	return k.err
}

func (k *lock) Info() swanlock.Info { return k.info }

func (k *lock) Done() <-chan struct{} { return k.done }

// AfterDone calls f, in a goroutine of its own, when Done is closed, with what Err
// returns then. stop prevents that, and reports whether it did. swanlock.Observe
// uses it.
func (k *lock) AfterDone(f func(err error)) (stop func() bool) {
	k.space.mu.Lock()
	defer k.space.mu.Unlock()
	if err := k.ended(); err != nil {
		go f(err)
		return func() bool { return false }
	}
	remove := k.after.Add(f)
	return func() bool {
		k.space.mu.Lock()
		defer k.space.mu.Unlock()
		return remove()
	}
}

func (k *lock) Err() error {
	k.space.mu.Lock()
	defer k.space.mu.Unlock()
	return k.ended()
}

func (k *lock) Deadline() (time.Time, bool) {
	k.space.mu.Lock()
	defer k.space.mu.Unlock()
	if k.info.TTL == 0 {
		return time.Time{}, false
	}
	return k.deadline, true
}

// Refresh refuses a ctx that has ended, and leaves the lock as it was.
func (k *lock) Refresh(ctx context.Context) error {
	k.space.mu.Lock()
	defer k.space.mu.Unlock()
	if err := k.ended(); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return fmt.Errorf("memlock: refresh %s: %w", quoted.Text(k.info.Target), context.Cause(ctx))
	}
	k.deadline = time.Now().Add(k.info.TTL)
	return nil
}

func (k *lock) Release(context.Context) error {
	k.space.mu.Lock()
	defer k.space.mu.Unlock()
	if k.released {
		return nil
	}
	k.released = true
	if err := k.ended(); err != nil {
		return err
	}
	k.end(swanlock.ErrReleased)
	k.space.settle(k.line)
	return nil
}
