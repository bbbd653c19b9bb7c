package filelock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// A place is where one lock is: the lock file dir/name, and in dir/.swanlock the
// state that only this package knows. There the lines of all locks of dir are in
// a few guard files, each of which is read and written under flock; and each
// holder or waiter has a file in alive, which it keeps under flock. A process that can
// lock that file knows that its process has ended. The lock file is a hard link
// to the holder's: it is whole as soon as it is there, and one write refreshes
// both.
type place struct {
	dir, name  string
	staleAfter time.Duration // the TTL by which SwanLake's processes judge the file
	settle     time.Duration // until it is certain that they have not removed it
}

func (p place) file() string           { return filepath.Join(p.dir, p.name) }
func (p place) state(of string) string { return filepath.Join(p.dir, stateDir, of) }
func (p place) alive(id string) string { return p.state(filepath.Join("alive", id)) }

const (
	stateDir = ".swanlock"
	guards   = 256
	waitTTL  = 10 * time.Second // of a waiter that does not look for its turn
)

// queues has, for each guard file that this process has used, a place for one of
// its goroutines. The others wait here and not at the flock, which the race
// detector does not know.
var queues sync.Map // from its path to a chan struct{}

// An entry is a holder or a waiter. Its lease began when its file in alive was
// last written, by the clock of the file system, the same for all hosts.
type entry struct {
	ID     string // the name of its file
	Owner  string
	Shared bool  `json:",omitempty"`
	Held   bool  `json:",omitempty"`
	TTL    int64 // milliseconds
}

// A line has a lock's holders, then its waiters in the order in which they came.
type line struct {
	place
	journal
	entries []entry
	lines   map[string][]entry // with the same guard
	now     time.Time          // by the file system's clock
	overs   []string           // which entries living has found to be over
}

// locked runs f on the line, while nobody else does. What f changes is kept
// if it calls save.
func (p place) locked(ctx context.Context, f func(*line) error) (err error) {
	guard := p.state(fmt.Sprintf("%02x", uint64(swanlock.KeyOf(p.name))%guards))
	queue, ok := queues.Load(guard)
	if !ok {
		queue, _ = queues.LoadOrStore(guard, make(chan struct{}, 1))
	}
	select {
	case queue.(chan struct{}) <- struct{}{}:
		defer func() { <-queue.(chan struct{}) }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	g, err := openLocked(ctx, guard)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }() // on NFS this writes
	l := &line{place: p, journal: journal{f: g}}
	if err := l.load(); err != nil {
		return err
	}
	if l.value != nil {
		if err := json.Unmarshal(l.value, &l.lines); err != nil {
			return fmt.Errorf("%s: %w", g.Name(), err)
		}
	}
	l.entries = l.lines[p.name]
	if l.now, err = touch(g); err != nil {
		return err
	}
	return f(l)
}

// openLocked opens one of our own files, which it makes if need be, and waits
// for its flock, which others have for some microseconds.
func openLocked(ctx context.Context, path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if f, err = os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666); err == nil {
			allow(path)
		}
	}
	if err != nil {
		return nil, err
	}
	for delay := 50 * time.Microsecond; ; delay = min(2*delay, 5*time.Millisecond) {
		ok, err := tryFlock(f, false)
		if err == nil && !ok {
			err = sleep(ctx, delay)
		}
		if err != nil {
			f.Close()
			return nil, err
		}
		if ok {
			return f, nil
		}
	}
}

// sleep waits for up to one and a half times d, or until ctx ends.
func sleep(ctx context.Context, d time.Duration) error {
	if !lease.Pause(ctx, d+rand.N(d/2)) {
		return context.Cause(ctx)
	}
	return nil
}

// touch asks the file system for the time: it writes a byte, and looks at the
// time of that.
func touch(f *os.File) (time.Time, error) {
	if _, err := f.WriteAt([]byte{0}, 0); err != nil {
		return time.Time{}, err
	}
	st, err := f.Stat()
	if err != nil {
		return time.Time{}, err
	}
	return st.ModTime(), nil
}

func (l *line) save() error {
	if l.lines == nil {
		l.lines = make(map[string][]entry)
	}
	if l.lines[l.name] = l.entries; len(l.entries) == 0 {
		delete(l.lines, l.name)
	}
	value, err := json.Marshal(l.lines)
	if err != nil {
		return err
	}
	return l.store(l.number+1, value)
}

func (l *line) index(id string) int {
	return slices.IndexFunc(l.entries, func(e entry) bool { return e.ID == id })
}

// living returns the entries that are not over, up to the first that excludes
// all behind it, and then all the rest. Only a grant drops those that are over,
// since it alone can take their lock file.
func (l *line) living(me string) (living []entry, err error) {
	l.overs = nil
	for i, e := range l.entries {
		over := false
		if e.ID != me {
			if over, err = l.over(e); err != nil {
				return nil, err
			}
		}
		switch {
		case over:
			l.overs = append(l.overs, e.ID)
		case !e.Shared:
			return append(living, l.entries[i:]...), nil
		default:
			living = append(living, e)
		}
	}
	return living, nil
}

// over reports whether the process of an entry has ended, or its lease has.
func (l *line) over(e entry) (bool, error) {
	f, err := os.Open(l.alive(e.ID))
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if dead, err := tryFlock(f, true); dead || err != nil {
		return dead, err
	}
	st, err := f.Stat()
	if err != nil {
		return false, err
	}
	return l.expired(st.ModTime(), time.Duration(e.TTL)*time.Millisecond), nil
}

// expired reports whether ttl has passed since then. It takes no chances: the
// kernel's clock for files ticks every 10 ms at worst, some file systems' every
// two seconds, and the holder's own clock may be slower by one in a thousand.
func (l *line) expired(then time.Time, ttl time.Duration) bool {
	tick := 20 * time.Millisecond
	if then.Nanosecond() == 0 && l.now.Nanosecond() == 0 {
		tick = 2 * time.Second
	}
	return l.now.Sub(then) >= ttl+ttl/1000+tick
}
