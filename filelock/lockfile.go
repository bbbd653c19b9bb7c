package filelock

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
)

// payload is what SwanLake's processes write into a lock file.
func payload(owner string, now time.Time) []byte {
	host, ok := os.LookupEnv("HOSTNAME")
	if !ok {
		host = "unknown"
	}
	return fmt.Appendf(nil, "host=%s\npid=%d\nacquired_at=%d\nsession_id=%s\n", host, os.Getpid(), now.Unix(), owner)
}

// holderOf names the holder of a lock, by the content of its lock file.
func holderOf(content string) string {
	for line := range strings.Lines(content) {
		if owner, ok := strings.CutPrefix(line, "session_id="); ok && owner != "\n" {
			return fmt.Sprintf("held by %q", strings.TrimSuffix(owner, "\n"))
		}
	}
	if content == "" {
		return "held by a process that left its lock file empty"
	}
	return fmt.Sprintf("held by %q", strings.Join(strings.Fields(content), " "))
}

// settle is longer than SwanLake's processes take between finding a lock file
// gone or stale and removing it, even if it is another process's by then.
const settle = 50 * time.Millisecond

// take makes the lock file a link to the file of id, if there is none, or one
// that is over: of a process of ours that has ended, or stale. Otherwise a process
// that knows the lock file alone has the lock, and by, which is not empty, names it.
func (l *line) take(id string) (by string, err error) {
	for {
		err := os.Link(l.alive(id), l.file())
		switch {
		case err == nil && l.settle == 0:
			return "", nil
		case err == nil:
			time.Sleep(l.settle)
			if ok, err := l.isLockFile(id); ok || err != nil {
				return "", err
			}
			return "held by a process that found it stale as well", nil
		case !errors.Is(err, fs.ErrExist):
			return "", err
		}
		content, st, err := read(l.file())
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		dead, err := l.isDead(st)
		if err != nil {
			return "", err
		}
		if !dead && !l.expired(st.ModTime(), l.staleAfter) {
			return holderOf(content), nil
		}
		if gone, err := l.takeAway(st); err != nil || !gone {
			return holderOf(content), err
		}
	}
}

// isDead reports whether a lock file is one of ours whose holder is over: all
// entries that are held have been found to be so.
func (l *line) isDead(st fs.FileInfo) (bool, error) {
	ids, err := os.ReadDir(l.alive(""))
	if err != nil {
		return false, err
	}
	for _, id := range ids {
		same, err := os.Stat(l.alive(id.Name()))
		if err == nil && os.SameFile(same, st) {
			if slices.Contains(l.overs, id.Name()) {
				return true, nil
			}
			// Not in line, yet it may live: then the line was lost, not the lock.
			return lockable(l.alive(id.Name()))
		}
		if ignoreMissing(err) != nil {
			return false, err
		}
	}
	return false, nil
}

// takeAway removes the lock file if it is still the one that st tells of. It moves
// it first and looks then, so that it removes nobody else's.
func (l *line) takeAway(st fs.FileInfo) (bool, error) {
	aside := l.state(rand.Text())
	if err := os.Rename(l.file(), aside); err != nil {
		return errors.Is(err, fs.ErrNotExist), ignoreMissing(err)
	}
	defer os.Remove(aside)
	now, err := os.Lstat(aside)
	if err != nil {
		return false, err
	}
	if os.SameFile(now, st) && now.ModTime().Equal(st.ModTime()) {
		return true, nil
	}
	if err := os.Link(aside, l.file()); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, err
	}
	return false, nil
}

// handOver makes the lock file, which is a holder's, a link to the file of id.
func (l *line) handOver(id string) error {
	next := l.state(rand.Text())
	if err := os.Link(l.alive(id), next); err != nil {
		return err
	}
	return errors.Join(os.Rename(next, l.file()), ignoreMissing(os.Remove(next)))
}

// isLockFile reports whether the lock file is a link to the file of id.
func (l *line) isLockFile(id string) (bool, error) {
	_, one, err := read(l.file())
	if err == nil {
		var other fs.FileInfo
		if other, err = os.Stat(l.alive(id)); err == nil {
			return os.SameFile(one, other), nil
		}
	}
	if errors.Is(err, errNoLockFile) {
		return false, nil
	}
	return false, ignoreMissing(err)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// errNoLockFile is the error of what has the name of a lock file and is somebody's
// folder, say, which would be moved away as stale.
var errNoLockFile = errors.New("it is no lock file, and in the way of one")

// read opens the file, so that NFS asks the server, and returns what it is. It
// opens neither a pipe, which would last until somebody writes to it, nor a link.
func read(path string) (content string, st fs.FileInfo, err error) {
	if st, err = os.Lstat(path); err != nil {
		return "", nil, err
	}
	if !st.Mode().IsRegular() {
		return "", nil, fmt.Errorf("%s: %w", path, errNoLockFile)
	}
	f, err := os.Open(path)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	if st, err = f.Stat(); err != nil {
		return "", nil, err
	}
	b := make([]byte, 1000)
	n, _ := f.Read(b)
	return string(b[:n]), st, nil
}
