package filelock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A claim is one entry in a line, from joining it until Release: a
// lease.Backend.
type claim struct {
	place
	entry            // as it is when it is held
	fenced bool      // a fence is asked for
	life   *os.File  // in alive, under flock; nil until there is need for it
	wrote  time.Time // when that was written
	joined bool      // it was put in line
	left   bool      // and is out again
	fence  uint64
}

// open makes the file by which others know that this process lives.
func (c *claim) open(now time.Time) error {
	if c.life != nil {
		return nil
	}
	f, err := os.OpenFile(c.alive(c.ID), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	c.life = f
	allow(f.Name())
	if err := c.sign(now); err != nil {
		return err
	}
	if ok, err := tryFlock(f, false); err != nil || !ok {
		return errors.Join(err, fmt.Errorf("%s cannot be locked", f.Name()))
	}
	return nil
}

// sign writes the file anew, and so begins its lease. What is written is as long
// as what was there. On NFS it is Stat that makes it be sent to the server.
func (c *claim) sign(now time.Time) error {
	c.wrote = time.Now()
	_, err := c.life.WriteAt(payload(c.Owner, now), 0)
	if err == nil {
		_, err = c.life.Stat()
	}
	return err
}

// await takes the lock, in one attempt or as soon as it is c's turn. The lease
// began after start. An error leaves c to be released.
func (c *claim) await(ctx context.Context, wait bool) (start time.Time, err error) {
	for {
		start = time.Now()
		by, next, err := c.attempt(ctx, wait)
		switch {
		case err != nil || by == "":
			return start, err
		case !wait:
			return start, fmt.Errorf("%w: %s", swanlock.ErrNotAcquired, by)
		}
		delay := 20 * time.Millisecond
		if next {
			delay = 4 * time.Millisecond
		}
		if sleep(ctx, delay) != nil {
			return start, errors.New(by) // after which the caller says why
		}
	}
}

// attempt takes the lock if it is c's turn. Otherwise by names the entry that is in
// the way; if c waits, it is in line then, and next reports whether the next turn is
// its own.
func (c *claim) attempt(ctx context.Context, wait bool) (by string, next bool, err error) {
	err = c.locked(ctx, func(l *line) error {
		inLine := l.index(c.ID) >= 0
		if c.joined && !inLine {
			c.drop() // It was taken for dead.
			c.ID, c.joined = rand.Text(), false
		}
		if !inLine {
			waiting := c.entry
			waiting.Held, waiting.TTL = false, waitTTL.Milliseconds()
			l.entries = append(l.entries, waiting)
		}
		living, err := l.living(c.ID)
		if err != nil {
			return err
		}
		me := slices.IndexFunc(living, func(e entry) bool { return e.ID == c.ID })
		block := slices.IndexFunc(living[:me], func(e entry) bool { return !(e.Shared && c.Shared) })
		if block < 0 {
			if by, err = c.grant(ctx, l, living); by == "" || err != nil {
				return err
			}
		} else if by = fmt.Sprintf("held by %q", living[block].Owner); !living[block].Held {
			by = fmt.Sprintf("%q is next", living[block].Owner)
		}
		next = me < 2
		switch {
		case !wait:
			return nil
		case !inLine:
			if err := c.open(l.now); err != nil {
				return err
			}
			c.joined = true
			return l.save()
		case time.Since(c.wrote) > waitTTL/5:
			return c.sign(l.now)
		}
		return nil
	})
	return by, next, err
}

// grant makes c a holder, unless a process of SwanLake's is one, which by then
// names.
func (c *claim) grant(ctx context.Context, l *line, living []entry) (by string, err error) {
	if err := c.open(l.now); err != nil {
		return "", err
	}
	// A lock file that is still that of an entry, if only of one that is over, was in
	// nobody else's hands: the readers beside it hold the lock.
	among := living
	if slices.ContainsFunc(living, func(e entry) bool { return e.Held }) {
		among = l.entries
	}
	if _, ok, err := l.holder(among); err != nil {
		return "", err
	} else if ok { // readers
		if err := l.handOver(c.ID); err != nil {
			return "", err
		}
	} else {
		if by, err = l.take(c.ID); by != "" || err != nil {
			return by, err
		}
		// The lock file of these was taken, so that others may have held it since.
		living = slices.DeleteFunc(living, func(e entry) bool { return e.Held })
	}
	if c.fenced {
		if c.fence, err = l.nextFence(ctx); err != nil {
			return "", err
		}
	}
	// The lease begins now, and not later than the holder's own.
	if err := c.sign(l.now); err != nil {
		return "", err
	}
	l.entries = living
	l.entries[l.index(c.ID)] = c.entry
	if err := l.save(); err != nil {
		return "", err
	}
	c.joined = true
	for _, id := range l.overs {
		_ = os.Remove(l.alive(id))
	}
	return "", nil
}

// holder returns the entry that is held and whose file is the lock file.
func (l *line) holder(among []entry) (id string, ok bool, err error) {
	for _, e := range among {
		if e.Held {
			if ok, err := l.isLockFile(e.ID); ok || err != nil {
				return e.ID, ok, err
			}
		}
	}
	return "", false, nil
}

// nextFence returns a number that is higher than any before, and on the disk. By
// the clock, it is so even if the files of dir were lost.
func (l *line) nextFence(ctx context.Context) (uint64, error) {
	f, err := openLocked(ctx, l.state("fence"))
	if err != nil {
		return 0, err
	}
	defer f.Close()
	j := journal{f: f}
	if err := j.load(); err != nil {
		return 0, err
	}
	fence := max(j.number+1, uint64(max(l.now.UnixMicro(), 0)))
	if err := j.store(fence, nil); err != nil {
		return 0, err
	}
	return fence, f.Sync()
}

// errGone says that a holder is none any more.
var errGone = errors.New("its lease ended, and another process removed it")

// Refresh restarts the lease, if the lock is still held.
func (c *claim) Refresh(ctx context.Context) error {
	return c.locked(ctx, func(l *line) error {
		if err := c.held(l); err != nil {
			return fmt.Errorf("%w: %w", swanlock.ErrLost, err)
		}
		if err := c.sign(l.now); err != nil {
			return err
		}
		if mine, err := l.isLockFile(c.ID); mine || err != nil {
			return err
		}
		return l.handOver(c.ID) // which is the last of its readers' to become stale
	})
}

// held returns nil if c is held, or why it is not.
func (c *claim) held(l *line) error {
	if l.index(c.ID) < 0 {
		return errGone
	}
	if _, ok, err := l.holder(l.entries); ok || err != nil {
		return err
	}
	content, _, err := read(l.file())
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the file %s was removed", l.file())
	}
	return errors.Join(err, fmt.Errorf("the file %s is now %s", l.file(), holderOf(content)))
}

// Release leaves the line, and reports whether c was held until now. If it
// cannot, the lock is free all the same: nobody has its file under flock then.
func (c *claim) Release(ctx context.Context) (held bool, err error) {
	if c.left || c.wrote.IsZero() {
		return false, nil
	}
	err = c.locked(ctx, func(l *line) error {
		mine, err := l.isLockFile(c.ID)
		i := l.index(c.ID)
		if held = i >= 0 && l.entries[i].Held && c.held(l) == nil; i >= 0 {
			l.entries = slices.Delete(l.entries, i, i+1)
		}
		if mine {
			err = l.passOn()
		}
		if i >= 0 {
			err = errors.Join(err, l.save())
		}
		if err != nil {
			return err
		}
		c.left = true
		return ignoreMissing(os.Remove(c.alive(c.ID)))
	})
	c.drop()
	return held, err
}

// passOn gives the lock file to the reader that will be stale last, or removes
// it.
func (l *line) passOn() error {
	var heir string
	var last time.Time
	for _, e := range l.entries {
		if e.Held {
			if st, err := os.Stat(l.alive(e.ID)); err == nil && (heir == "" || st.ModTime().After(last)) {
				heir, last = e.ID, st.ModTime()
			}
		}
	}
	if heir != "" {
		return l.handOver(heir)
	}
	_, st, err := read(l.file())
	if err != nil {
		return ignoreMissing(err)
	}
	_, err = l.takeAway(st)
	return err
}

// drop closes the file, and with it ends its flock. What still has its name is
// taken for dead.
func (c *claim) drop() {
	if c.life != nil {
		c.life.Close()
		c.life = nil
	}
}
