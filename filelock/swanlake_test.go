//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// file returns a target that is a path, and its lock file.
func file(t *testing.T) (target, lock string) {
	target = filepath.Join(t.TempDir(), "queue.db")
	return target, target + ".lock"
}

func content(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return string(b)
}

// age makes a file look as if it was last refreshed that long ago.
func age(t *testing.T, path string, d time.Duration) {
	t.Helper()
	then := time.Now().Add(-d)
	must(t, os.Chtimes(path, then, then))
}

func is(t *testing.T, what string, err error, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("%s: got %v, want %v", what, err, want)
	}
}

// TestFormat: the lock file is SwanLake's, byte for byte, and gone after release.
func TestFormat(t *testing.T) {
	t.Setenv("HOSTNAME", "host-7")
	target, lock := file(t)
	held, err := filelock.New().TryAcquire(t.Context(), target, swanlock.WithOwner("session-7"))
	must(t, err)
	want := func() {
		t.Helper()
		got := content(t, lock)
		_, at, _ := strings.Cut(got, "acquired_at=")
		at, _, _ = strings.Cut(at, "\n")
		if sec, err := strconv.ParseInt(at, 10, 64); err != nil || time.Since(time.Unix(sec, 0)).Abs() > time.Minute {
			t.Errorf("acquired_at=%s", at)
		}
		if want := fmt.Sprintf("host=host-7\npid=%d\nacquired_at=%s\nsession_id=session-7\n", os.Getpid(), at); got != want {
			t.Errorf("got\n%swant\n%s", got, want)
		}
	}
	want()
	must(t, held.Refresh(t.Context()))
	want()
	must(t, held.Release(t.Context()))
	if _, err := os.Stat(lock); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after release: %v", err)
	}
}

// TestHolderEndsFirst: the lease of the holder counts from before the lock file was
// written, by whose time others judge it.
func TestHolderEndsFirst(t *testing.T) {
	target, lock := file(t)
	held, err := filelock.New().TryAcquire(t.Context(), target, swanlock.WithTTL(time.Minute))
	must(t, err)
	st, err := os.Stat(lock)
	must(t, err)
	deadline, _ := held.Deadline()
	for what, at := range map[string]time.Time{"the deadline": deadline.Add(-time.Minute), "AcquiredAt": held.Info().AcquiredAt} {
		if at.After(st.ModTime()) {
			t.Errorf("by %s the lease began %v after the lock file was written", what, at.Sub(st.ModTime()))
		}
	}
	must(t, held.Release(t.Context()))
}

// TestExcludeEachOther: processes of SwanLake's, ours that write and ours that
// read, all at once.
func TestExcludeEachOther(t *testing.T) {
	t.Parallel()
	target, _ := file(t)
	number := filepath.Join(t.TempDir(), "number")
	var all []*process
	for _, kind := range []string{"old", "old", "write", "write", "read", "read"} {
		all = append(all, start(t, "storm", target, kind, "30s", "4s", number))
	}
	sum := 0
	for _, p := range all {
		n, err := strconv.Atoi(p.answer())
		must(t, err)
		sum += n
	}
	if got := content(t, number); got != strconv.Itoa(sum) || sum < 10 {
		t.Errorf("got %s, want %d", got, sum)
	}
	t.Logf("%d times", sum)
	var last uint64
	for fence := range strings.Lines(content(t, number+".fences")) {
		f, err := strconv.ParseUint(strings.TrimSpace(fence), 10, 64)
		if err != nil || f <= last {
			t.Errorf("fence %q after %d", fence, last)
		}
		last = f
	}
}

// TestOldHolds: what an old process holds is refused, with its name, and free after
// its release; what ours holds is refused to an old one, readers too.
func TestOldHolds(t *testing.T) {
	t.Parallel()
	target, lock := file(t)
	old, l := start(t, "old", target), filelock.New()
	old.must("ttl 10m")
	old.must("try")
	_, err := l.TryAcquire(t.Context(), target)
	is(t, "ours", err, swanlock.ErrNotAcquired)
	if !strings.Contains(fmt.Sprint(err), `held by "old"`) {
		t.Error(err)
	}
	old.must("release")
	one, err := l.TryAcquire(t.Context(), target, swanlock.WithShared())
	must(t, err)
	two, err := l.TryAcquire(t.Context(), target, swanlock.WithShared())
	must(t, err)
	for _, held := range []swanlock.DistributedLock{one, two, one} {
		age(t, lock, 5*time.Minute) // It is one reader's; each refresh must count.
		must(t, held.Refresh(t.Context()))
		if st, err := os.Stat(lock); err != nil || time.Since(st.ModTime()) > time.Minute {
			t.Errorf("after a reader's refresh: %v, %v", st.ModTime(), err)
		}
	}
	for _, held := range []swanlock.DistributedLock{one, two} {
		if got := old.do("try"); got != "held" {
			t.Errorf("an old process: %s", got)
		}
		must(t, held.Release(t.Context()))
	}
	old.must("try")
}

// TestStaleTogether: of many that find a lock file stale, one gets the lock.
func TestStaleTogether(t *testing.T) {
	t.Parallel()
	for range 20 {
		target, lock := file(t)
		must(t, os.WriteFile(lock, []byte("host=gone\npid=1\nacquired_at=1\n"), 0o666))
		_, err := filelock.New().TryAcquire(t.Context(), target)
		is(t, "before it is stale", err, swanlock.ErrNotAcquired)
		age(t, lock, filelock.SwanLakeTTL-10*time.Second)
		_, err = filelock.New().TryAcquire(t.Context(), target)
		is(t, "before it is stale", err, swanlock.ErrNotAcquired)
		age(t, lock, filelock.SwanLakeTTL+10*time.Second)
		var wg sync.WaitGroup
		got := make(chan swanlock.DistributedLock, 8)
		for range cap(got) {
			wg.Go(func() {
				if held, err := filelock.New().TryAcquire(t.Context(), target); err == nil {
					got <- held
				}
			})
		}
		wg.Wait()
		if n := len(got); n != 1 {
			t.Errorf("%d got it, want 1", n)
		}
		for range len(got) {
			must(t, (<-got).Release(t.Context()))
		}
	}
}

// TestOldRemovesOurs: an old process that found a file stale, or gone, removes
// whatever is there a moment later. Ours notices, and has no lock.
func TestOldRemovesOurs(t *testing.T) {
	t.Parallel()
	for name, then := range map[string]func(t *testing.T, lock string){
		"stale": func(t *testing.T, lock string) { age(t, lock, time.Hour) },
		"gone":  func(t *testing.T, lock string) { must(t, os.Remove(lock)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			target, lock := file(t)
			must(t, os.WriteFile(lock, nil, 0o666))
			var ours swanlock.DistributedLock
			var refused error
			var wg sync.WaitGroup
			old := oldLocker{
				beforeLook: func() { then(t, lock) },
				beforeRemove: func() {
					l := filelock.New(filelock.WithSettle(3 * time.Second))
					wg.Go(func() { ours, refused = l.TryAcquire(t.Context(), target) })
					for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) { // until ours is there
						if st, err := os.Stat(lock); err == nil && time.Since(st.ModTime()) < time.Minute {
							return
						}
					}
					t.Error("ours does not come")
				},
			}
			_, err := old.TryAcquire(t.Context(), target, swanlock.WithTTL(time.Minute))
			wg.Wait()
			must(t, err)
			is(t, "ours", refused, swanlock.ErrNotAcquired)
			runtime.KeepAlive(ours) // The garbage collector would release it.
		})
	}
}

// TestOldTookIt: an old process that removed our file, as theirs do, has the lock.
// Ours is told, and leaves the other's file alone.
func TestOldTookIt(t *testing.T) {
	t.Parallel()
	target, lock := file(t)
	l := filelock.New()
	for _, shared := range []swanlock.Option{nil, swanlock.WithShared()} {
		held, err := l.TryAcquire(t.Context(), target, shared)
		must(t, err)
		late, err := l.TryAcquire(t.Context(), target, swanlock.WithShared())
		if shared == nil {
			is(t, "another", err, swanlock.ErrNotAcquired)
		}
		must(t, os.Remove(lock))
		must(t, os.WriteFile(lock, []byte("host=other\n"), 0o666))
		err = held.Refresh(t.Context())
		is(t, "Refresh", err, swanlock.ErrLost)
		if !strings.Contains(fmt.Sprint(err), "host=other") {
			t.Error(err)
		}
		is(t, "Err", held.Err(), swanlock.ErrLost)
		is(t, "Release", held.Release(t.Context()), swanlock.ErrLost)
		if late != nil {
			is(t, "Release without Refresh", late.Release(t.Context()), swanlock.ErrLost)
		}
		if got := content(t, lock); got != "host=other\n" {
			t.Errorf("the file is now %q", got)
		}
		_, err = l.TryAcquire(t.Context(), target)
		is(t, "the other holds it", err, swanlock.ErrNotAcquired)
		must(t, os.Remove(lock))
	}
	held, err := l.TryAcquire(t.Context(), target)
	must(t, err)
	must(t, os.Remove(lock))
	is(t, "Refresh without a file", held.Refresh(t.Context()), swanlock.ErrLost)
	_ = held.Release(t.Context())
}

// TestReadersLost: readers whose lock file was removed have lost the lock, also when
// another reader has made the file anew since.
func TestReadersLost(t *testing.T) {
	t.Parallel()
	target, lock := file(t)
	l := filelock.New()
	one, err := l.TryAcquire(t.Context(), target, swanlock.WithShared())
	must(t, err)
	must(t, os.Remove(lock)) // An old process held the lock from now on, and freed it.
	two, err := l.TryAcquire(t.Context(), target, swanlock.WithShared())
	must(t, err)
	is(t, "Refresh", one.Refresh(t.Context()), swanlock.ErrLost)
	is(t, "Release", one.Release(t.Context()), swanlock.ErrLost)
	must(t, two.Refresh(t.Context()))
	must(t, two.Release(t.Context()))
}

// TestLateRelease: a holder whose TTL has ended touches no successor's file.
func TestLateRelease(t *testing.T) {
	t.Parallel()
	target, lock := file(t)
	l := filelock.New()
	late, err := l.TryAcquire(t.Context(), target, swanlock.WithTTL(2*time.Second), swanlock.WithOwner("late"))
	must(t, err)
	next, err := l.Acquire(t.Context(), target, swanlock.WithOwner("next"))
	must(t, err)
	before, err := os.Stat(lock)
	must(t, err)
	is(t, "Refresh", late.Refresh(t.Context()), swanlock.ErrExpired)
	is(t, "Release", late.Release(t.Context()), swanlock.ErrExpired)
	after, err := os.Stat(lock)
	must(t, err)
	if !os.SameFile(before, after) || !before.ModTime().Equal(after.ModTime()) || !strings.Contains(content(t, lock), "session_id=next\n") {
		t.Errorf("the file is now %s", content(t, lock))
	}
	must(t, next.Release(t.Context()))
}

// TestNeverHalfWritten: a process that reads the lock file reads all of it.
func TestNeverHalfWritten(t *testing.T) {
	t.Parallel()
	target, lock := file(t)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	wg.Go(func() {
		defer stop() // Without a holder, there is nothing to read.
		l := filelock.New()
		for ctx.Err() == nil {
			held, err := l.Acquire(ctx, target, swanlock.WithOwner("o"))
			if err == nil {
				err = errors.Join(held.Refresh(t.Context()), held.Release(t.Context()))
			}
			if err != nil && ctx.Err() == nil {
				t.Error("a call fails: ", err)
				return
			}
		}
	})
	for seen := 0; seen < 2000 && ctx.Err() == nil; {
		b, err := os.ReadFile(lock)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		must(t, err)
		if s := string(b); !strings.HasPrefix(s, "host=") || !strings.HasSuffix(s, "\nsession_id=o\n") {
			t.Fatalf("got %q", s)
		}
		seen++
	}
}
