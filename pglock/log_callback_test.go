package pglock_test

import (
	"context"
	"log/slog"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A callback is a handler of logs that uses what logs.
type callback struct {
	slog.Handler
	about string // in the messages of which it does so
	f     atomic.Pointer[func()]
	done  chan struct{}
}

func newCallback(about string) *callback {
	return &callback{slog.DiscardHandler, about, atomic.Pointer[func()]{}, make(chan struct{}, 100)}
}

func (c *callback) Enabled(context.Context, slog.Level) bool { return true }

func (c *callback) Handle(_ context.Context, r slog.Record) error {
	if f := c.f.Load(); f != nil && strings.Contains(r.Message, c.about) {
		(*f)()
		c.done <- struct{}{}
	}
	return nil
}

// called waits until f was called for a message, and has returned.
func (c *callback) called(t *testing.T, f func(), cause func()) {
	t.Helper()
	c.f.Store(&f)
	cause()
	select {
	case <-c.done:
	case <-time.After(soon):
		t.Fatal("the handler has not returned")
	}
}

// TestLogCallsBack: no mutex is held while something is logged, so that a handler may
// look at the lock and the pool, and one that blocks stops nobody else.
func TestLogCallsBack(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		t.Run("refresh", func(t *testing.T) {
			log := newCallback("background refresh failed")
			s, conn := newSession(t, driver, pglock.WithLogger(slog.New(log)))
			held := acquired(t, s, newTarget(t), swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh())
			log.called(t, func() { held.Err(); held.Deadline() }, func() { run(t, conn, "SELECT pg_sleep(1.5)") })
			held.Release(bg)
		})
		t.Run("drop", func(t *testing.T) {
			log := newCallback("dropped")
			p, err := pglock.NewPool(openDB(t, driver), pglock.WithLogger(slog.New(log)))
			must(t, err)
			held := acquired(t, p, newTarget(t))
			acquired(t, p, newTarget(t))
			log.called(t, func() { held.Err(); p.Stats() }, func() {
				eventually(t, "it was dropped", func() bool {
					runtime.GC()
					return p.Stats().Locks == 1
				})
			})
			must(t, held.Release(bg))
			must(t, p.Close(shortly(t)))
		})
		t.Run("shared session", func(t *testing.T) {
			log := newCallback("too few connections")
			p, err := pglock.NewPool(openDB(t, driver), pglock.WithMaxSessions(1), pglock.WithLogger(slog.New(log)))
			must(t, err)
			held := acquired(t, p, newTarget(t))
			log.called(t, func() { p.Stats() }, func() {
				must(t, acquired(t, p, newTarget(t), swanlock.WithTTL(time.Minute)).Release(bg))
			})
			must(t, held.Release(bg))
			must(t, p.Close(shortly(t)))
		})
	})
}
