//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

// BenchmarkPair is one acquire and one release; SWANLOCK_DIR says where, by
// default in the folder for temporary files.
func BenchmarkPair(b *testing.B) {
	dir, err := os.MkdirTemp(os.Getenv("SWANLOCK_DIR"), "pair")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	for name, l := range map[string]*filelock.Locker{
		"name":               filelock.New(filelock.WithDir(dir)),
		"path":               filelock.New(),
		"path, no SwanLake":  filelock.New(filelock.WithoutSwanLake()),
		"name, with a fence": filelock.New(filelock.WithDir(dir)),
	} {
		var opts []swanlock.Option
		if name == "name, with a fence" {
			opts = append(opts, swanlock.WithFence())
		}
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				held, err := l.TryAcquire(b.Context(), filepath.Join(dir, "queue.db"), opts...)
				if err == nil {
					err = held.Release(b.Context())
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
