package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/swanlake-io/swanlock"
)

// maxRefresh is the longest time between two refreshes, so that also a lock
// with a long TTL, or none, is soon known to be lost.
const maxRefresh = 3 * time.Second

// A process is what a guard watches over.
type process interface {
	ended() <-chan struct{}
	signal(syscall.Signal)
	stop()                  // ask it to end: SIGTERM
	kill()                  // SIGKILL
	sweep(by time.Duration) // after its end: wait for what it left running, then kill it
}

// A job is a process that tells, once it has ended, how it did: its exit code
// as a shell has it, and the same in words.
type job interface {
	process
	result() (code int, how string)
}

// A guard watches over a process and the lock that it runs under.
//
// With a TTL the process is gone before anybody else can hold the lock, as long
// as swanlock itself runs: if no refresh gets through, it is stopped one grace
// before the time to kill it, which is shortly before the lock's deadline. If the
// lock is lost at once (its session was ended), the grace begins at that moment.
type guard struct {
	lock    swanlock.DistributedLock
	proc    process
	ttl     time.Duration // 0: none
	idle    time.Duration // how long the server lets the session be idle; 0: for ever
	grace   time.Duration // at most a third of the TTL is used
	signals <-chan os.Signal
	warn    func(error)
	told    bool // a signal has told the process to end
}

// ends reports whether a signal asks a process to end.
func ends(sig os.Signal) bool {
	return sig == syscall.SIGINT || sig == syscall.SIGTERM || sig == syscall.SIGQUIT || sig == syscall.SIGHUP
}

// renew refreshes the lock if much of its TTL has passed before the process
// could be started, and returns why the lock is over, if it is.
func (g *guard) renew() error {
	if deadline, ok := g.lock.Deadline(); ok && time.Since(g.lock.Info().AcquiredAt) >= g.ttl/6 {
		ctx, cancel := context.WithDeadline(context.Background(), deadline)
		defer cancel()
		_ = g.lock.Refresh(ctx) // An error is left to watch, which meets it as well.
	}
	return g.lock.Err()
}

// watch returns when the process has ended. Its error, if any, is the loss.
func (g *guard) watch(ctx context.Context) (lost error) {
	every, grace := maxRefresh, g.grace
	if g.idle > 0 { // the role's, perhaps, if there is no TTL
		every = min(every, max(g.idle/6, time.Millisecond))
	}
	var reserve time.Duration  // from the time to stop the process to the deadline
	var alarm <-chan time.Time // when that is
	var timer *time.Timer
	if g.ttl > 0 {
		every, grace = min(every, g.ttl/6), min(grace, g.ttl/3)
		reserve = min(g.ttl/10, time.Second) + grace // timers are late, and a kill takes time
		timer = time.NewTimer(g.left(reserve))
		defer timer.Stop()
		alarm = timer.C
	}

	quit, results := make(chan struct{}), make(chan error)
	var refresher sync.WaitGroup
	refresher.Go(func() { g.refresh(every, quit, results) })
	defer refresher.Wait()
	defer close(quit)

	var killAt time.Time
	var killAlarm <-chan time.Time
	end := func(why error) {
		if lost != nil {
			return
		}
		lost, killAt = why, time.Now().Add(grace)
		if grace > 0 {
			g.proc.stop()
		}
		killAlarm = time.After(grace)
	}
	done, cancelled, failing := g.lock.Done(), ctx.Done(), false
	for {
		select {
		case <-g.proc.ended():
			if lost != nil {
				g.proc.sweep(time.Until(killAt))
			}
			return lost
		case sig := <-g.signals:
			g.told = g.told || ends(sig)
			g.proc.signal(sig.(syscall.Signal))
		case <-cancelled:
			cancelled, g.told = nil, true
			g.proc.signal(syscall.SIGTERM)
		case err := <-results:
			if timer != nil {
				timer.Reset(g.left(reserve)) // later by a refresh, or sooner by a sleep of the machine
			}
			switch {
			case err == nil:
				failing = false
			case errors.Is(err, swanlock.ErrLost):
				end(err)
			case !failing && lost == nil:
				failing = true
				g.warn(fmt.Errorf("cannot refresh the lock, will try again: %w", err))
			}
		case <-done:
			done = nil
			end(g.lock.Err())
		case <-alarm:
			if left := g.left(reserve); left > 0 { // something else refreshed it
				timer.Reset(left)
			} else {
				end(fmt.Errorf("no refresh got through for %v of its TTL of %v", g.ttl-reserve, g.ttl))
			}
		case <-killAlarm:
			g.proc.kill()
		}
	}
}

// left is how long it is until reserve is all that is left before the lock's
// deadline.
func (g *guard) left(reserve time.Duration) time.Duration {
	deadline, _ := g.lock.Deadline() // it has one, since it has a TTL
	return time.Until(deadline) - reserve
}

// refresh keeps the lock until quit is closed. It is a goroutine of its own, so
// that a server that does not answer delays nothing else.
func (g *guard) refresh(every time.Duration, quit <-chan struct{}, results chan<- error) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-quit:
			return
		}
		// No context: cutting a statement short could cost the session.
		err := g.lock.Refresh(context.Background())
		select {
		case results <- err:
		case <-quit:
			return
		}
	}
}
