//go:build unix

package testserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
)

// Patience bounds every wait for what must happen.
const Patience = time.Minute

// Eventually waits until look returns nil.
func Eventually(t testing.TB, what string, look func() error) {
	t.Helper()
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err := look()
		if err == nil {
			return
		}
		if time.Since(start) > Patience {
			t.Fatalf("%s: not within %v: %v", what, Patience, err)
		}
	}
}

// Try takes a lock that is free.
func Try(t testing.TB, l swanlock.Locker, target string, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	held, err := l.TryAcquire(t.Context(), target, opts...)
	if err != nil {
		t.Fatalf("TryAcquire of %q: %v", target, err)
	}
	return held
}

// Release releases a lock that is held.
func Release(t testing.TB, held swanlock.DistributedLock) {
	t.Helper()
	if err := held.Release(context.WithoutCancel(t.Context())); err != nil {
		t.Errorf("Release: %v", err)
	}
}

// Told waits until held is over, and checks that its error matches want.
func Told(t testing.TB, held swanlock.DistributedLock, want error) {
	t.Helper()
	select {
	case <-held.Done():
	case <-time.After(Patience):
		t.Fatalf("Done was not closed within %v", Patience)
	}
	if err := held.Err(); !errors.Is(err, want) {
		t.Errorf("Err: got %v, want one that matches %v", err, want)
	}
}

// Superseded checks that late knows that its lease has ended, and leaves alone the lock
// that next has now.
func Superseded(t testing.TB, late, next swanlock.DistributedLock) {
	t.Helper()
	if err := late.Release(t.Context()); !errors.Is(err, swanlock.ErrExpired) {
		t.Errorf("Release of the late holder: got %v, want ErrExpired", err)
	}
	if err := next.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh of the next holder: %v", err)
	}
}

// HeldByChild runs t in a process of its own, in which the variable env is value, and
// waits until that has called Hold. kill kills it.
func HeldByChild(t testing.TB, env, value string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), env+"="+value)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	t.Cleanup(kill)
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "held"; {
	}
	return kill
}

// Hold is for the process of HeldByChild, when it has what it is to hold.
func Hold() {
	fmt.Println("held")
	select {}
}

// A Call is a call in a goroutine of its own.
type Call struct {
	t        testing.TB
	returned chan struct{}
	held     swanlock.DistributedLock
	err      error
}

// Go calls acquire.
func Go(t testing.TB, acquire func() (swanlock.DistributedLock, error)) *Call {
	c := &Call{t: t, returned: make(chan struct{})}
	go func() {
		defer close(c.returned)
		c.held, c.err = acquire()
	}()
	return c
}

// Acquire calls Acquire.
func Acquire(t testing.TB, l swanlock.Locker, target string, opts ...swanlock.Option) *Call {
	return Go(t, func() (swanlock.DistributedLock, error) { return l.Acquire(t.Context(), target, opts...) })
}

// Waits reports whether the call has not returned.
func (c *Call) Waits() bool {
	select {
	case <-c.returned:
		return false
	default:
		return true
	}
}

// MustWait checks that the call has not returned.
func (c *Call) MustWait(when string) {
	c.t.Helper()
	if !c.Waits() {
		held, err := c.Result()
		c.t.Fatalf("%s: Acquire returned %v, %v", when, held, err)
	}
}

// Result waits for the call.
func (c *Call) Result() (swanlock.DistributedLock, error) {
	c.t.Helper()
	select {
	case <-c.returned:
	case <-time.After(Patience):
		c.t.Fatalf("Acquire did not return within %v", Patience)
	}
	return c.held, c.err
}

// MustGet waits for a call that must get the lock.
func (c *Call) MustGet() swanlock.DistributedLock {
	c.t.Helper()
	held, err := c.Result()
	if err != nil {
		c.t.Fatalf("Acquire: %v", err)
	}
	return held
}
