//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

// within returns a context for what must come far sooner than a TTL ends.
func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// leftovers returns what our own state has but the guards.
func leftovers(t *testing.T, target string) (names []string) {
	t.Helper()
	alive, err := os.ReadDir(filepath.Join(filepath.Dir(target), ".swanlock", "alive"))
	must(t, err)
	state, err := os.ReadDir(filepath.Join(filepath.Dir(target), ".swanlock"))
	must(t, err)
	for _, e := range append(alive, state...) {
		if name := e.Name(); len(name) > 2 && name != "alive" && name != "fence" {
			names = append(names, name)
		}
	}
	return names
}

// inLine waits until n hold the lock or wait for it.
func inLine(t *testing.T, target string, n int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		got, err := filelock.New().InLine(target)
		must(t, err)
		if got == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d are in line, want %d", got, n)
		}
	}
}

// guard takes the flock under which the state of target is changed, the only one of
// its folder. Close frees it.
func guard(t *testing.T, target string) *os.File {
	t.Helper()
	guards, err := filepath.Glob(filepath.Join(filepath.Dir(target), ".swanlock", "[0-9a-f][0-9a-f]"))
	if err != nil || len(guards) != 1 {
		t.Fatal(guards, err)
	}
	g, err := os.Open(guards[0])
	must(t, err)
	must(t, syscall.Flock(int(g.Fd()), syscall.LOCK_EX))
	return g
}

// stop stops the process, but not while it changes the state of target: that would
// keep all others waiting (see TestGuardIsHeld).
func (p *process) stop(target string) {
	p.t.Helper()
	g := guard(p.t, target)
	defer g.Close()
	p.signal(syscall.SIGSTOP)
	var status syscall.WaitStatus
	_, err := syscall.Wait4(p.Process.Pid, &status, syscall.WUNTRACED, nil)
	must(p.t, err)
	if !status.Stopped() {
		p.t.Fatalf("it ended: %v", status)
	}
}

// TestCrash: the lock of a process that was killed is free at once, with and without
// a TTL, although SwanLake's would wait for ten minutes; and waiters that were killed
// are in nobody's way.
func TestCrash(t *testing.T) {
	t.Parallel()
	for _, more := range []string{"try", "ttl 10m", "shared"} {
		target, _ := file(t)
		holder := start(t, "ours", target, "10m")
		if more != "try" {
			holder.must(more)
		}
		holder.must("try")
		waiter := start(t, "ours", target, "10m")
		waiter.send("acquire")
		inLine(t, target, 2)
		l := filelock.New()
		_, err := l.TryAcquire(t.Context(), target)
		is(t, "while it lives", err, swanlock.ErrNotAcquired)
		waiter.signal(syscall.SIGKILL)
		_, err = l.TryAcquire(t.Context(), target)
		is(t, "while it lives", err, swanlock.ErrNotAcquired)
		holder.signal(syscall.SIGKILL)
		held, err := l.Acquire(within(t, patience), target)
		must(t, err)
		must(t, held.Err())
		must(t, held.Release(t.Context()))
		if names := leftovers(t, target); len(names) != 0 {
			t.Errorf("%s: left over: %v", more, names)
		}
	}
}

// TestReadersOutliveOne: when the reader whose file is the lock file is killed, or
// its lease ends while it hangs, the next reader takes nothing from those that live.
func TestReadersOutliveOne(t *testing.T) {
	t.Parallel()
	for name, hangs := range map[string]bool{"killed": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, _ := file(t)
			l := filelock.New()
			lives, err := l.TryAcquire(t.Context(), target, swanlock.WithShared())
			must(t, err)
			ends := start(t, "ours", target, "10m")
			ends.must("ttl 3s")
			ends.must("shared")
			ends.must("try")
			if hangs {
				ends.stop(target)
				time.Sleep(4 * time.Second) // over its TTL
			} else {
				ends.signal(syscall.SIGKILL)
				time.Sleep(200 * time.Millisecond)
			}
			next, err := l.TryAcquire(t.Context(), target, swanlock.WithShared())
			must(t, err)
			must(t, next.Release(t.Context()))
			_, err = l.TryAcquire(t.Context(), target)
			is(t, "a writer, while a reader lives", err, swanlock.ErrNotAcquired)
			must(t, lives.Refresh(t.Context()))
			must(t, lives.Release(t.Context()))
			held, err := l.TryAcquire(t.Context(), target)
			must(t, err)
			must(t, held.Release(t.Context()))
		})
	}
}

// TestChildren: a child that was given the file keeps the lock alive after its parent
// was killed; any other does not.
func TestChildren(t *testing.T) {
	t.Parallel()
	for _, keeps := range []bool{true, false} {
		target, _ := file(t)
		holder := start(t, "ours", target, "10m")
		holder.must("try")
		command := "child"
		if keeps {
			command = "child keeps"
		}
		child, err := strconv.Atoi(holder.do(command))
		must(t, err)
		t.Cleanup(func() { _ = syscall.Kill(-child, syscall.SIGKILL) })
		holder.signal(syscall.SIGKILL)
		time.Sleep(100 * time.Millisecond)
		if keeps {
			_, err := filelock.New().TryAcquire(t.Context(), target)
			is(t, "while the child lives", err, swanlock.ErrNotAcquired)
			must(t, syscall.Kill(child, syscall.SIGKILL))
		}
		held, err := filelock.New().Acquire(within(t, patience), target)
		must(t, err)
		must(t, held.Release(t.Context()))
	}
}

// TestHang: the lock of a process that was stopped is free when its TTL has ended,
// and the process knows when it wakes. So it is without a TTL, by that of SwanLake.
func TestHang(t *testing.T) {
	t.Parallel()
	for name, setup := range map[string][]string{"TTL": {"ttl 5s", "auto"}, "no TTL": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, _ := file(t)
			holder := start(t, "ours", target, "6s")
			for _, s := range setup {
				holder.must(s)
			}
			holder.must("try")
			time.Sleep(7 * time.Second)
			if got := holder.do("err"); got != "ok" {
				t.Fatalf("refreshed in the background: %s", got)
			}
			l := filelock.New(filelock.WithStaleAfter(6 * time.Second))
			_, err := l.TryAcquire(t.Context(), target)
			is(t, "before it hangs", err, swanlock.ErrNotAcquired)
			holder.stop(target)
			held, err := l.Acquire(within(t, patience), target)
			must(t, err)
			holder.signal(syscall.SIGCONT)
			for _, call := range []string{"err", "refresh", "release"} {
				if got := holder.do(call); got != "lost" {
					t.Errorf("after it woke: %s: %s", call, got)
				}
			}
			must(t, held.Refresh(t.Context()))
			must(t, held.Release(t.Context()))
		})
	}
}

// TestOneLine: processes are granted the lock in the order in which they came.
func TestOneLine(t *testing.T) {
	t.Parallel()
	target, _ := file(t)
	held, err := filelock.New().TryAcquire(t.Context(), target)
	must(t, err)
	var waiters []*process
	for range 4 {
		p := start(t, "ours", target, "10m")
		p.send("acquire")
		waiters = append(waiters, p)
		inLine(t, target, 1+len(waiters))
	}
	must(t, held.Release(t.Context()))
	for i, p := range waiters {
		if got := p.answer(); got != "ok" {
			t.Fatal(got)
		}
		time.Sleep(100 * time.Millisecond)
		for _, later := range waiters[i+1:] {
			if len(later.answers) != 0 {
				t.Errorf("one that came later than waiter %d has the lock: %s", i, <-later.answers)
			}
		}
		p.must("release")
	}
}

// TestWaiterHangs: a waiter that was stopped loses its place, and gets another when
// it wakes.
func TestWaiterHangs(t *testing.T) {
	if testing.Short() {
		t.Skip("takes 12 s")
	}
	t.Parallel()
	target, _ := file(t)
	l := filelock.New()
	first, err := l.TryAcquire(t.Context(), target)
	must(t, err)
	waiter := start(t, "ours", target, "10m")
	waiter.send("acquire")
	inLine(t, target, 2)
	waiter.stop(target)
	must(t, first.Release(t.Context()))
	_, err = l.TryAcquire(t.Context(), target)
	is(t, "overtaking a waiter", err, swanlock.ErrNotAcquired)
	second, err := l.Acquire(within(t, patience), target)
	must(t, err)
	waiter.signal(syscall.SIGCONT)
	time.Sleep(time.Second)
	select {
	case a := <-waiter.answers:
		t.Fatalf("the waiter got %q", a)
	default:
	}
	must(t, second.Release(t.Context()))
	if got := waiter.answer(); got != "ok" {
		t.Errorf("the waiter got %q", got)
	}
	waiter.must("release")
}

// TestGuardIsHeld: a process that is stopped in the middle of a change keeps others
// waiting, but not from giving up; and a holder that cannot say that it has ended
// frees the lock all the same.
func TestGuardIsHeld(t *testing.T) {
	t.Parallel()
	target, _ := file(t)
	l := filelock.New()
	held, err := l.TryAcquire(t.Context(), target)
	must(t, err)
	g := guard(t, target)
	defer g.Close()
	for _, acquire := range []func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){l.TryAcquire, l.Acquire} {
		_, err = acquire(within(t, 100*time.Millisecond), target)
		is(t, "acquire", err, context.DeadlineExceeded)
		is(t, "acquire", err, swanlock.ErrNotAcquired)
	}
	err = held.Refresh(within(t, 100*time.Millisecond))
	is(t, "refresh", err, context.DeadlineExceeded)
	must(t, held.Err())
	is(t, "release", held.Release(t.Context()), swanlock.ErrLost)
	must(t, g.Close())
	next, err := l.Acquire(within(t, patience), target)
	must(t, err)
	must(t, next.Release(t.Context()))
	runtime.KeepAlive(held) // The garbage collector would close its file.
}

// TestFullDisk: on a full disk nothing new can be locked, and the error says why; what
// is locked can be refreshed and released.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("SKIPPED, NOTHING IS TESTED: no small disk can be made here: %v: %s", err, out)
	}
	t.Cleanup(func() { must(t, exec.Command("umount", dir).Run()) })
	l := filelock.New()
	target := filepath.Join(dir, "queue.db")
	fill := func() {
		t.Helper()
		f, err := os.OpenFile(filepath.Join(dir, "full"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
		must(t, err)
		defer f.Close()
		for err == nil {
			_, err = f.Write(make([]byte, 4096))
		}
		is(t, "filling the disk", err, syscall.ENOSPC)
	}
	held, err := l.TryAcquire(t.Context(), target, swanlock.WithFence())
	must(t, err)
	fill()
	must(t, held.Refresh(t.Context()))
	_, err = l.TryAcquire(within(t, patience), target+"2", swanlock.WithShared())
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("on a full disk: %v", err)
	}
	ctx := within(t, time.Second)
	if _, err := l.Acquire(ctx, target); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("waiting on a full disk: %v", err)
	}
	must(t, held.Refresh(t.Context()))
	must(t, held.Release(t.Context()))
	fill()
	if _, err := l.TryAcquire(t.Context(), target); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("on a full disk, free: %v", err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.lock"))
	if err != nil || len(files) != 0 || len(leftovers(t, target)) != 0 {
		t.Errorf("left over: %v, %v", files, leftovers(t, target))
	}
	must(t, os.Remove(filepath.Join(dir, "full")))
	held, err = l.TryAcquire(t.Context(), target, swanlock.WithFence())
	must(t, err)
	must(t, held.Release(t.Context()))
}

// TestKilledAnywhere: processes that are killed at any moment leave nothing that
// keeps the others from the lock, and never two holders.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	target, number := filepath.Join(dir, "t"), filepath.Join(t.TempDir(), "number")
	steady := start(t, "storm", target, "write", "30s", "8s", number)
	readers := start(t, "storm", target, "read", "30s", "8s", number)
	var wg sync.WaitGroup
	for n := range 2 {
		wg.Go(func() {
			for i := range 15 {
				kind := "write"
				if n > 0 {
					kind = "read"
				}
				p := exec.Command(os.Args[0], target, kind, "30s", "1m", number)
				p.Env = append(os.Environ(), actor+"=storm")
				p.Stderr = os.Stderr
				if err := p.Start(); err != nil {
					t.Error(err)
					return
				}
				time.Sleep(time.Duration(150+i*7) * time.Millisecond)
				_ = p.Process.Kill()
				_ = p.Wait()
			}
		})
	}
	wg.Wait()
	for _, p := range []*process{steady, readers} {
		n, err := strconv.Atoi(p.answer())
		must(t, err)
		t.Logf("%d times", n)
	}
	held, err := filelock.New().Acquire(within(t, patience), target)
	must(t, err)
	must(t, held.Release(t.Context()))
}
