package pglock_test

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPoolOfSilentSessions: a pool that may have no other session than those that the
// server leaves without an answer is not full. An Acquire waits until it answers.
func TestPoolOfSilentSessions(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	eachDriver(t, func(t *testing.T, driver string) {
		network := newProxy(t)
		p, err := pglock.NewPool(openURL(t, driver, network.url), pglock.WithMaxSessions(1), pglock.WithHeartbeat(50*time.Millisecond), pglock.WithLogger(nil))
		must(t, err)
		defer p.Close(shortly(t))
		held := acquired(t, p, newTarget(t))
		network.Silence()
		defer network.Resume()
		time.Sleep(5500 * time.Millisecond)
		if err := held.Err(); err != nil {
			t.Fatalf("the session is lost: %v", err)
		}
		_, err = p.TryAcquire(bg, newTarget(t))
		if err == nil || errors.Is(err, pglock.ErrPoolFull) {
			t.Errorf("a pool with one lock: got %v", err)
		}
		time.AfterFunc(500*time.Millisecond, network.Resume)
		ctx, cancel := context.WithTimeout(bg, soon)
		defer cancel()
		l, err := p.Acquire(ctx, newTarget(t))
		must(t, err)
		must(t, l.Release(bg))
		must(t, held.Release(bg))
	})
}

// TestPoolOfALostSession: a session that is just being ended takes nobody's place.
func TestPoolOfALostSession(t *testing.T) {
	t.Parallel()
	var broken atomic.Bool
	db, _ := editedPgxpool(t, func(query string) string {
		switch {
		case !broken.Load():
		case query == db.OneLine(db.Heartbeat), query == db.OneLine(db.HeldKeys):
			return "SELECT 1/0"
		case query == db.OneLine(db.EndBackend):
			broken.Store(false)
			return "SELECT pg_sleep(1) IS NULL, $1::integer, $2::bigint"
		}
		return query
	})
	p, err := pglock.NewPool(db, pglock.WithMaxSessions(1), pglock.WithHeartbeat(50*time.Millisecond), pglock.WithLogger(nil))
	must(t, err)
	defer p.Close(shortly(t))
	held := acquired(t, p, newTarget(t))
	broken.Store(true)
	wantIs(t, ended(t, held), swanlock.ErrLost)
	must(t, acquired(t, p, newTarget(t)).Release(bg))
}
