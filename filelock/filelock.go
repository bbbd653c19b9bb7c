package filelock

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// SwanLakeTTL is the TTL by which SwanLake takes a lock file for stale, unless
// SWANLAKE_DUCKLING_QUEUE_LOCK_TTL_SECONDS says another.
const SwanLakeTTL = 600 * time.Second

// A Locker takes locks that are files. It keeps nothing but its options, so that
// two are as good as one; its locks have files of their own.
type Locker struct {
	dir        string
	staleAfter time.Duration
	settle     time.Duration
}

// An Option sets how a Locker works.
type Option func(*Locker)

// WithDir makes any name a target, whose lock file is in dir. It is made when it
// is needed; a relative one is that of where the process is when New is called.
// Without WithDir a target is an absolute path, and the lock file of /a/b is
// /a/b.lock, in a folder that exists.
func WithDir(dir string) Option { return func(l *Locker) { l.dir = dir } }

// WithStaleAfter says what SwanLake's processes have as the TTL of their locks; the
// default is theirs, SwanLakeTTL. Their lock files are taken for stale after that,
// as they do ours. So it is the longest TTL that a lock may have, and a lock
// without one is refreshed in the background every third of it.
func WithStaleAfter(ttl time.Duration) Option { return func(l *Locker) { l.staleAfter = ttl } }

// WithoutSwanLake says that no process of SwanLake's locks here any more. Otherwise
// a lock of a path takes 50 ms: they sometimes remove a lock file that has just
// been made, and ours waits until it has survived that. With WithDir there are
// none.
func WithoutSwanLake() Option { return func(l *Locker) { l.settle = 0 } }

// New returns a locker. Errors of its options are those of each acquire.
func New(opts ...Option) *Locker {
	l := &Locker{staleAfter: SwanLakeTTL, settle: settle}
	for _, opt := range opts {
		if opt != nil {
			opt(l)
		}
	}
	if l.dir != "" {
		if dir, err := filepath.Abs(l.dir); err == nil {
			l.dir = dir
		}
	}
	return l
}

// A Lock is a lock that is held, or was.
type Lock struct {
	*lease.Lock
	life *os.File // the claim's
}

// File returns an open file that keeps the lock alive, for a child process
// (exec.Cmd.ExtraFiles): others take the holder for dead only when all of its
// copies are closed. The TTL goes on to count. Close it after the start of the child.
func (k *Lock) File() (*os.File, error) {
	if err := k.Err(); err != nil {
		return nil, err
	}
	return dup(k.life)
}

// TryAcquire takes the lock if it is free, and nobody waits for it.
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.acquire(ctx, target, opts, false)
}

// Acquire waits for the lock, in the order in which callers came. A process that
// knows SwanLake's lock file alone has no place in that order.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return l.acquire(ctx, target, opts, true)
}

func (l *Locker) acquire(ctx context.Context, target string, opts []swanlock.Option, wait bool) (swanlock.DistributedLock, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err != nil {
		return nil, fmt.Errorf("filelock: %w", err)
	}
	r := lease.Request{Package: "filelock", Target: target, Options: o, Lease: cmp.Or(o.TTL, l.staleAfter)}
	p, err := l.place(target, o.TTL)
	if err != nil {
		return nil, r.Wrap(err)
	}
	if ctx.Err() != nil {
		return nil, r.Failed(ctx, nil)
	}
	if err := l.makeState(p); err != nil {
		return nil, r.Wrap(err)
	}
	for {
		c := &claim{place: p, fenced: o.Fence, entry: entry{ID: rand.Text(), Owner: o.Owner, Shared: o.Shared, Held: true,
			TTL: (r.Lease + time.Millisecond - 1).Milliseconds()}}
		r.Backend = c
		start, err := c.await(ctx, wait)
		if err == nil {
			k, err := lease.Granted(ctx, r, start, c.fence)
			if err == nil {
				return &Lock{k, c.life}, nil
			}
			if wait && ctx.Err() == nil {
				continue // The grant took longer than the lease.
			}
			return nil, err
		}
		if _, left := lease.Free(ctx, c); left != nil {
			err = fmt.Errorf("%w (leaving the line: %w)", err, left)
		}
		return nil, r.Failed(ctx, err)
	}
}

// place returns where the lock of target is.
func (l *Locker) place(target string, ttl time.Duration) (place, error) {
	p := place{staleAfter: l.staleAfter}
	switch {
	case supported != nil:
		return p, supported
	case l.staleAfter < time.Second:
		return p, fmt.Errorf("WithStaleAfter: %v is under a second", l.staleAfter)
	case ttl > l.staleAfter:
		return p, fmt.Errorf("%w: the TTL %v is over %v, after which SwanLake's processes take the lock: see WithStaleAfter", errors.ErrUnsupported, ttl, l.staleAfter)
	case l.dir != "":
		p.dir, p.name = l.dir, fmt.Sprintf("%016x.lock", uint64(swanlock.KeyOf(target)))
		return p, nil
	case !filepath.IsAbs(target):
		return p, errors.New("it is no absolute path: give one, or see WithDir")
	}
	p.dir, p.name = lockFile(target)
	p.settle = l.settle
	return p, nil
}

// lockFile returns where SwanLake has the lock file of a path. It takes paths
// apart as Rust does.
func lockFile(target string) (dir, name string) {
	var parts []string
	for part := range strings.SplitSeq(target, "/") {
		if part != "" && part != "." {
			parts = append(parts, part)
		}
	}
	name = "duckling_queue" // of a path without a name of its own
	if n := len(parts); n > 0 && parts[n-1] != ".." {
		parts, name = parts[:n-1], parts[n-1]
	}
	return "/" + strings.Join(parts, "/"), name + ".lock"
}

// makeState makes the folders that are not there yet.
func (l *Locker) makeState(p place) error {
	alive := p.alive("")
	if _, err := os.Stat(alive); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if l.dir != "" {
		if err := os.MkdirAll(l.dir, 0o777); err != nil {
			return err
		}
	}
	for _, dir := range []string{p.state(""), alive} {
		if err := mkdir(dir); err != nil {
			return err
		}
	}
	return nil
}

// mkdir makes a folder of ours, unless it is there.
func mkdir(dir string) error {
	err := os.Mkdir(dir, 0o777)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err == nil {
		allow(dir)
	}
	return err
}

// allow lets those that may write to a folder write to what was just made in it,
// which the umask may have forbidden: the processes of several users lock
// together. In a sticky folder nobody takes over what is another user's.
func allow(path string) {
	folder, err := os.Stat(filepath.Dir(path))
	if err != nil || folder.Mode()&fs.ModeSticky != 0 {
		return
	}
	st, err := os.Stat(path)
	if err != nil {
		return
	}
	var rights fs.FileMode
	if folder.Mode()&0o020 != 0 {
		rights |= 0o070
	}
	if folder.Mode()&0o002 != 0 {
		rights |= 0o007
	}
	if !st.IsDir() {
		rights &= 0o666
	}
	if has := st.Mode().Perm(); has|rights != has {
		_ = os.Chmod(path, has|rights) // some file systems have no such rights
	}
}
