package filelock

import (
	"context"
	"os"
	"slices"
	"time"
)

// WithSettle makes certain that a test is not slower than settle.
func WithSettle(d time.Duration) Option { return func(l *Locker) { l.settle = d } }

// InLine returns how many hold target or wait for it.
func (l *Locker) InLine(target string) (n int, err error) {
	p, err := l.place(target, 0)
	if err == nil {
		err = p.locked(context.Background(), func(on *line) error {
			n = len(on.entries)
			return nil
		})
	}
	return n, err
}

// Drop takes the holders of target from their line, or the waiters, as if they were
// over.
func (l *Locker) Drop(target string, held bool) error {
	p, err := l.place(target, 0)
	if err != nil {
		return err
	}
	return p.locked(context.Background(), func(on *line) error {
		on.entries = slices.DeleteFunc(on.entries, func(e entry) bool { return e.Held == held })
		if held {
			if err := os.Remove(p.file()); err != nil {
				return err
			}
		}
		return on.save()
	})
}

// Lines returns how many lines the file has in which target's is.
func (l *Locker) Lines(target string) (n int, err error) {
	p, err := l.place(target, 0)
	if err == nil {
		err = p.locked(context.Background(), func(on *line) error {
			n = len(on.lines)
			return nil
		})
	}
	return n, err
}
