package locktest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
)

// patience bounds every wait for something that must happen. Only a failing
// backend waits so long.
const patience = 30 * time.Second

// patience is for something that may have to wait for two short TTLs first.
func (cfg *config) patience() time.Duration { return patience + cfg.freeAfter(2*cfg.ttl) }

// freeAfter returns when a lock with the TTL d is free at the latest.
func (cfg *config) freeAfter(d time.Duration) time.Duration {
	return time.Duration(cfg.late * float64(d))
}

// An env is what a case works with. Its methods that stop the case (must...)
// are for the case's own goroutine.
type env struct {
	tb
	*config
	test      *testing.T // for what the options give, as Lose does
	newLocker func() swanlock.Locker

	ctx    context.Context // for every call that is not about contexts
	cancel context.CancelFunc
	watch  func() (stalled func() time.Duration)
	calls  sync.WaitGroup

	mu      sync.Mutex
	locks   []swanlock.DistributedLock // all ever acquired
	slowest time.Duration              // of the calls that an attempt of steady made
}

// close ends what the case left: calls that wait, then locks, so that a
// failing case leaves nothing on a server that others use.
func (e *env) close() {
	e.cancel()
	returned := make(chan struct{})
	go func() {
		e.calls.Wait()
		close(returned)
	}()
	select {
	case <-returned:
	case <-time.After(patience):
		e.Errorf("a call was still running %v after its context had ended", patience)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, held := range e.locks {
		_ = held.Release(ctx) // most were released by the case
	}
}

func (e *env) lacks(f feature) bool { _, missing := e.without[f]; return missing }

func (e *env) locker() swanlock.Locker {
	e.Helper()
	l := e.newLocker()
	if l == nil {
		e.Fatalf("newLocker returned nil")
	}
	return l
}

// loseLock takes a lock from its holder, as Lose says.
func (e *env) loseLock(held swanlock.DistributedLock) { e.lose(e.test, held) }

// endPlaces ends the places in line, as LosePlaces says.
func (e *env) endPlaces(target string) { e.losePlaces(e.test, target) }

// target returns a name that nobody else uses.
func (e *env) target() string { return "locktest/" + rand.Text() }

// pause gives a waiter time to get in line. Nothing that must hold depends on
// its length.
func (e *env) pause() { time.Sleep(100 * time.Millisecond) }

// keep notes a lock for close, and looks at the shape of what a call returned.
func (e *env) keep(held swanlock.DistributedLock, err error) error {
	if held == nil && err == nil {
		return errors.New("locktest: the call returned neither a lock nor an error")
	}
	if held != nil && err != nil {
		e.Errorf("the call returned a lock (%T) with the error %v; want a nil interface", held, err)
	}
	if held != nil && err == nil {
		e.mu.Lock()
		defer e.mu.Unlock()
		e.locks = append(e.locks, held)
	}
	return err
}

func (e *env) try(l swanlock.Locker, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	e.Helper()
	defer e.timed(time.Now())
	held, err := l.TryAcquire(e.ctx, target, opts...)
	return held, e.keep(held, err)
}

// refresh and release are for attempts of steady.
func (e *env) refresh(held swanlock.DistributedLock) error {
	defer e.timed(time.Now())
	return held.Refresh(e.ctx)
}

func (e *env) release(held swanlock.DistributedLock) error {
	defer e.timed(time.Now())
	return held.Release(e.ctx)
}

// timed notes how long a call that waits for nobody has taken.
func (e *env) timed(began time.Time) {
	took := time.Since(began)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.slowest = max(e.slowest, took)
}

func (e *env) setSlowest(d time.Duration) (old time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	old, e.slowest = e.slowest, d
	return old
}

// mustTry tries again if the machine stalled: the grant may have come when its TTL
// was over.
func (e *env) mustTry(l swanlock.Locker, target string, opts ...swanlock.Option) (held swanlock.DistributedLock) {
	e.Helper()
	e.attempts(func() (err error) {
		if held, err = e.try(l, target, opts...); err != nil {
			return fmt.Errorf("TryAcquire of a free target: %w", err)
		}
		return nil
	}, func() {})
	return held
}

// A call is an Acquire in a goroutine of its own.
type call struct {
	returned chan struct{}
	held     swanlock.DistributedLock
	err      error
}

func (e *env) start(ctx context.Context, l swanlock.Locker, target string, opts ...swanlock.Option) *call {
	c := &call{returned: make(chan struct{})}
	e.calls.Go(func() {
		defer close(c.returned)
		c.held, c.err = l.Acquire(ctx, target, opts...)
		c.err = e.keep(c.held, c.err)
	})
	return c
}

func (c *call) waits() bool {
	select {
	case <-c.returned:
		return false
	default:
		return true
	}
}

func (e *env) result(c *call) (swanlock.DistributedLock, error) {
	e.Helper()
	e.mustClose(c.returned, "Acquire did not return")
	return c.held, c.err
}

// mustGet waits for a call that now must get the lock.
func (e *env) mustGet(c *call) swanlock.DistributedLock {
	e.Helper()
	held, err := e.result(c)
	if err != nil {
		e.Fatalf("Acquire of a target that became free: %v", err)
	}
	return held
}

func (e *env) mustAcquire(l swanlock.Locker, target string, opts ...swanlock.Option) swanlock.DistributedLock {
	e.Helper()
	return e.mustGet(e.start(e.ctx, l, target, opts...))
}

func (e *env) mustRelease(held swanlock.DistributedLock) {
	e.Helper()
	if err := held.Release(e.ctx); err != nil {
		e.Fatalf("Release of a held lock: %v", err)
	}
}

// mustClose waits for c to be closed.
func (e *env) mustClose(c <-chan struct{}, otherwise string) {
	e.Helper()
	if err := closedWithin(c, e.patience(), otherwise); err != nil {
		e.Fatalf("%v", err)
	}
}

// is checks that err matches all of want.
func (e *env) is(what string, err error, want ...error) {
	e.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			e.Errorf("%s: got the error %q, want one that matches %q", what, errText(err), w)
		}
	}
}

func (e *env) isNot(what string, err error, unwanted ...error) {
	e.Helper()
	for _, u := range unwanted {
		if errors.Is(err, u) {
			e.Errorf("%s: got the error %q, want one that does not match %q", what, errText(err), u)
		}
	}
}

func errText(err error) string {
	if err == nil {
		return "<nil>"
	}
	return err.Error()
}

// holds checks that held is held, as itself says and as the others see it.
func (e *env) holds(when string, held swanlock.DistributedLock, other swanlock.Locker) {
	e.Helper()
	if err := held.Err(); err != nil {
		e.Errorf("%s: Err of the held lock: got %v, want nil", when, err)
	}
	select {
	case <-held.Done():
		e.Errorf("%s: Done of the held lock is closed", when)
	default:
	}
	if err := held.Refresh(e.ctx); err != nil {
		e.Errorf("%s: Refresh of the held lock: got %v, want nil", when, err)
	}
	e.refused(when, other, held.Info().Target)
}

// refused checks that l, another session, does not get what is held.
func (e *env) refused(when string, l swanlock.Locker, target string, opts ...swanlock.Option) {
	e.Helper()
	held, err := e.try(l, target, opts...)
	if err == nil {
		e.Errorf("%s: another locker acquired the target too: %+v", when, held.Info())
		_ = held.Release(e.ctx)
		return
	}
	e.is(when+": TryAcquire by another locker", err, swanlock.ErrNotAcquired)
	e.isNot(when+": TryAcquire by another locker", err, swanlock.ErrAlreadyHeld)
}

// free checks that nobody holds target.
func (e *env) free(when string, l swanlock.Locker, target string) {
	e.Helper()
	held, err := e.try(l, target)
	if err != nil {
		e.Errorf("%s: the target is not free: %v", when, err)
		return
	}
	if err := held.Release(e.ctx); err != nil {
		e.Errorf("%s: Release: %v", when, err)
	}
}

// steady runs an attempt that a stalled machine may spoil. Its error counts
// only if this process was scheduled all the while and the backend answered at
// once; otherwise it runs again, with a TTL that is twice as long.
func (e *env) steady(attempt func() error) {
	e.Helper()
	defer e.setTTL(e.ttl) // as it is now
	e.attempts(attempt, e.longerTTL)
}

// longerTTL makes the TTL twice as long, up to ten seconds, for an attempt that needs
// more time than the one before.
func (e *env) longerTTL() { e.ttl = max(e.ttl, min(2*e.ttl, 10*time.Second)) }

func (e *env) setTTL(d time.Duration) { e.ttl = d }

// attempts is steady, with what it does before it tries again.
func (e *env) attempts(attempt func() error, again func()) {
	e.Helper()
	var err error
	for range 8 {
		stalled := e.watch()
		defer stalled() // attempt may stop the case
		outer := e.setSlowest(0)
		err = attempt()
		gap := stalled()
		slowest := e.setSlowest(outer)
		e.setSlowest(max(outer, slowest))
		if err == nil {
			return
		}
		if max(gap, slowest) < e.ttl/10 {
			e.Fatalf("%v", err)
		}
		e.Logf("trying again, as the machine stalled for %v, and a call of the backend took %v: %v", gap, slowest, err)
		again()
	}
	e.Fatalf("the machine is too busy for a TTL of %v, see ShortTTL: %v", e.ttl, err)
}

// watchScheduler returns a function that tells the longest time for which a
// sleeping goroutine was not woken.
func watchScheduler() (stalled func() time.Duration) { return watchClock(time.Now) }

func watchClock(clock func() time.Time) (stalled func() time.Duration) {
	var longest time.Duration
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		const nap = 5 * time.Millisecond
		for last := clock(); ; {
			ended := false
			select {
			case <-stop:
				ended = true
			case <-time.After(nap):
			}
			now := clock()
			longest = max(longest, now.Sub(last)-nap)
			last = now
			if ended {
				return
			}
		}
	}()
	return sync.OnceValue(func() time.Duration {
		close(stop)
		<-stopped
		return longest
	})
}

// closedWithin is mustClose for an attempt of steady.
func closedWithin(c <-chan struct{}, d time.Duration, otherwise string) error {
	select {
	case <-c:
		return nil
	case <-time.After(d):
		return fmt.Errorf("%s within %v", otherwise, d)
	}
}
