package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/swanlake-io/swanlock/filelock"
)

// acquireFile takes the lock in a file, without a server. After an error nothing
// is held.
func acquireFile(ctx context.Context, o runOptions) (*held, error) {
	dir := o.dir
	if dir == "" && !filepath.IsAbs(o.target) {
		dir = fmt.Sprintf("/tmp/swanlock-%d", os.Getuid())
		if err := ownFolder(dir); err != nil {
			return nil, failf(exitConfig, "run: no folder for the locks: give one with --dir: %w", err)
		}
	}
	switch st, err := os.Stat(dir); {
	case o.dir == "", err == nil && st.IsDir():
	case err == nil, errors.Is(err, fs.ErrNotExist):
		return nil, failf(exitConfig, "run: --dir %s is no folder: make it first, on all hosts that share it", quote(dir))
	default:
		return nil, failf(exitConfig, "run: --dir: %w", err)
	}
	opts := []filelock.Option{filelock.WithDir(dir)}
	if dir != "" {
		opts = append(opts, filelock.WithStaleAfter(max(o.ttl, filelock.SwanLakeTTL)))
	}
	bounded := ctx
	if o.timeout > 0 {
		var cancel context.CancelFunc
		bounded, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	lock, err := o.take(bounded, filelock.New(opts...))
	if err != nil {
		return nil, o.refused(ctx, err)
	}
	return &held{lock: lock}, nil
}

// ownFolder makes a folder, if need be, that only this user may write to. In /tmp
// another user could have made it.
func ownFolder(dir string) error {
	if err := os.Mkdir(dir, 0o700); err == nil || !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	own, ok := st.Sys().(*syscall.Stat_t)
	if !ok || !st.IsDir() || int(own.Uid) != os.Getuid() || st.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("%s is not a folder that you alone may write to", dir)
	}
	return nil
}
