//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

func TestRefused(t *testing.T) {
	l := filelock.New()
	for target, opts := range map[string][]swanlock.Option{
		"queue.db":   nil,
		"./queue.db": nil,
	} {
		_, err := l.TryAcquire(t.Context(), target, opts...)
		if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("%s: %v", target, err)
		}
	}
	target, _ := file(t)
	_, err := l.TryAcquire(t.Context(), target, swanlock.WithTTL(filelock.SwanLakeTTL+1))
	is(t, "a TTL over SwanLake's", err, errors.ErrUnsupported)
	if _, err := filelock.New(filelock.WithStaleAfter(0)).TryAcquire(t.Context(), target); err == nil {
		t.Error("WithStaleAfter(0) is taken")
	}
	if names, _ := filepath.Glob(filepath.Join(filepath.Dir(target), "*")); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// TestNames: spellings of one path have one lock file, which is SwanLake's.
func TestNames(t *testing.T) {
	target, lock := file(t)
	dir := filepath.Dir(target)
	for _, spelling := range []string{target, target + "/", strings.ReplaceAll(target, "/", "//"), dir + "/./queue.db/.", dir + "/x/../queue.db"} {
		must(t, os.MkdirAll(filepath.Join(dir, "x"), 0o777))
		held, err := filelock.New().TryAcquire(t.Context(), spelling)
		must(t, err)
		if _, err := os.Stat(lock); err != nil {
			t.Errorf("%s: %v", spelling, err)
		}
		must(t, held.Release(t.Context()))
	}
	held, err := filelock.New().TryAcquire(t.Context(), dir+"/x/..")
	must(t, err)
	if _, err := os.Stat(filepath.Join(dir, "duckling_queue.lock")); err != nil {
		t.Error(err)
	}
	must(t, held.Release(t.Context()))
}

// TestManyFiles: a lock that is held has one file open, a waiter too, and what is
// released none.
func TestManyFiles(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("there is no /proc/self/fd")
	}
	open := func() int {
		fds, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(fds)
	}
	l, before := filelock.New(filelock.WithDir(t.TempDir())), open()
	var all []swanlock.DistributedLock
	for i := range 100 {
		held, err := l.TryAcquire(t.Context(), fmt.Sprint(i))
		must(t, err)
		all = append(all, held)
	}
	if n := open() - before; n != 100 {
		t.Errorf("%d files are open, want 100", n)
	}
	for i, held := range all {
		_, err := l.TryAcquire(t.Context(), fmt.Sprint(i))
		is(t, "held", err, swanlock.ErrNotAcquired)
		_, err = l.Acquire(within(t, time.Millisecond), fmt.Sprint(i))
		is(t, "held", err, swanlock.ErrNotAcquired)
		must(t, held.Release(t.Context()))
	}
	if n := open() - before; n != 0 {
		t.Errorf("%d files are still open", n)
	}
}

// TestLineLost: if somebody removes the guards, the lock file still says that its
// holder lives, and keeps others out.
func TestLineLost(t *testing.T) {
	t.Parallel()
	target, lock := file(t)
	l := filelock.New()
	held, err := l.TryAcquire(t.Context(), target)
	must(t, err)
	guards, err := filepath.Glob(filepath.Join(filepath.Dir(target), ".swanlock", "[0-9a-f][0-9a-f]"))
	must(t, err)
	for _, g := range guards {
		must(t, os.Remove(g))
	}
	_, err = l.TryAcquire(t.Context(), target)
	is(t, "while the holder lives", err, swanlock.ErrNotAcquired)
	is(t, "Refresh", held.Refresh(t.Context()), swanlock.ErrLost)
	is(t, "Release", held.Release(t.Context()), swanlock.ErrLost)
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after release: %v", err)
	}
	held, err = l.TryAcquire(t.Context(), target)
	must(t, err)
	must(t, held.Release(t.Context()))
}

// TestFenceByTheClock: fences rise also when the files of .swanlock were removed.
func TestFenceByTheClock(t *testing.T) {
	dir, last := t.TempDir(), uint64(0)
	for range 2 {
		held, err := filelock.New(filelock.WithDir(dir)).TryAcquire(t.Context(), "t", swanlock.WithFence())
		must(t, err)
		if fence := held.Info().Fence; fence <= last {
			t.Errorf("fence %d after %d", fence, last)
		} else {
			last = fence
		}
		must(t, held.Release(t.Context()))
		must(t, os.RemoveAll(filepath.Join(dir, ".swanlock")))
		time.Sleep(20 * time.Millisecond) // the tick of the file system's clock
	}
}

// TestFileOfALockThatIsOver: it keeps nothing alive, so a child cannot have it.
func TestFileOfALockThatIsOver(t *testing.T) {
	held, err := filelock.New(filelock.WithDir(t.TempDir())).TryAcquire(t.Context(), "t")
	must(t, err)
	must(t, held.Release(t.Context()))
	f, err := held.(*filelock.Lock).File()
	if err == nil {
		f.Close()
	}
	is(t, "File", err, swanlock.ErrReleased)
}

// TestNoLineIsLeft: a target that nobody holds or waits for takes no room in the file of
// its line, which many targets have.
func TestNoLineIsLeft(t *testing.T) {
	l := filelock.New(filelock.WithDir(t.TempDir()))
	held, err := l.TryAcquire(t.Context(), "t")
	must(t, err)
	if n, err := l.Lines("t"); n != 1 || err != nil {
		t.Errorf("while it is held: %d lines, %v", n, err)
	}
	must(t, held.Release(t.Context()))
	if n, err := l.Lines("t"); n != 0 || err != nil {
		t.Errorf("after its release: %d lines, %v", n, err)
	}
}
