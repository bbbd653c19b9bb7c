//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "lake")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	target := filepath.Join(dir, "queue.db")

	locks := filelock.New()
	held, err := locks.TryAcquire(ctx, target, swanlock.WithTTL(time.Minute), swanlock.WithOwner("flush worker"))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release(ctx)

	_, err = locks.TryAcquire(ctx, target)
	fmt.Println(errors.Is(err, swanlock.ErrNotAcquired))

	content, err := os.ReadFile(target + ".lock") // as SwanLake's processes see it
	fmt.Println(strings.Contains(string(content), "session_id=flush worker"), err)
	// Output:
	// true
	// true <nil>
}

// A folder is tried before a fleet relies on it: this is run on two hosts at the
// same time.
func ExampleProbe() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) // a minute, for two hosts
	defer cancel()
	dir, err := os.MkdirTemp("", "lake")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	report, err := filelock.Probe(ctx, dir)
	if err != nil {
		fmt.Println("not safe:", err)
		return
	}
	fmt.Println("other processes that it was tried with:", len(report.Peers))
	// Output: other processes that it was tried with: 0
}

func ExampleWithDir() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "locks")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	locks := filelock.New(filelock.WithDir(dir))
	err = swanlock.Do(ctx, locks, "nightly report", func(ctx context.Context, held swanlock.DistributedLock) error {
		fmt.Println(swanlock.Held(ctx, "nightly report"))
		return nil
	})
	fmt.Println(err)
	// Output:
	// <nil>
	// <nil>
}
