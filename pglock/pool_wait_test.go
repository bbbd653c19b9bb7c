//go:build unix

package pglock_test

import (
	"context"
	"errors"
	"runtime"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A lock that expires is unlocked at once: no heartbeat is needed for it.
func TestPoolHearsOfWhatExpired(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p := observe(t), newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour))
		held := acquired(t, p, newTarget(t), swanlock.WithTTL(time.Hour))
		pglock.Expire(held)
		o.wantSoonFree(held.Info().Target)
		wantIs(t, held.Release(bg), swanlock.ErrExpired)
	})
}

// A lock whose handle was dropped is released, since the pool may use its
// session.
func TestPoolDropped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p := newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour), pglock.WithLogger(nil))
		acquired(t, p, target)
		eventually(t, "the lock is released", func() bool { runtime.GC(); return len(o.holders(target)) == 0 })
		l, err := p.Acquire(shortly(t), target) // the server may have told the observer first
		must(t, err)
		must(t, l.Release(bg))
	})
}

// A lock on a connection that was given back to the *sql.DB is unlocked before
// the pool uses the connection.
func TestPoolSettlesWhatItFinds(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target, db := observe(t), newTarget(t), openDB(t, driver)
		db.SetMaxOpenConns(1)
		conn := connOf(t, db)
		left := acquired(t, functions{conn}, target)
		must(t, conn.Close())
		held := acquired(t, newPool(t, db), target)
		wantIs(t, left.Err(), swanlock.ErrLost)
		must(t, held.Release(bg))
		o.wantHeld(target)
	})
}

// A writer that polls on the session of the pool's own reader is not let in.
func TestPoolWriterPollsAmongReaders(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, target := newPool(t, openDB(t, driver), pglock.WithPolling()), newTarget(t)
		reader := acquired(t, p, target, swanlock.WithShared())
		ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
		defer cancel()
		if writer, err := p.Acquire(ctx, target); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a writer among readers: got %v, want ErrNotAcquired", err)
			writer.Release(bg)
		}
		must(t, reader.Release(bg))
	})
}

// A reader in line does not overtake a writer that waits in the server's queue,
// though the session has the lock already.
func TestPoolReaderInLineDoesNotOvertake(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver), pglock.WithPolling()), newTarget(t)
		first := acquired(t, p, target, swanlock.WithShared())
		conn := dial(t, driver)
		pid := pidOf(t, conn)
		wrote := make(chan error, 1)
		go func() {
			_, err := conn.ExecContext(bg, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf(target)))
			wrote <- err
		}()
		eventually(t, "the writer waits", func() bool {
			return one[bool](t, o.db, "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1::int AND NOT granted)", pid)
		})
		ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
		defer cancel()
		if second, err := p.Acquire(ctx, target, swanlock.WithShared()); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("got %v, want ErrNotAcquired", err)
			second.Release(bg)
		}
		must(t, first.Release(bg))
		must(t, <-wrote)
	})
}

// When the first of the pool's waiters gives up, the next looks for itself.
func TestPoolLeaverWakesTheNext(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver)), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		ctx, cancel := context.WithCancel(bg)
		leaver := waitsFor(t, o, ctx, p, target)
		next := waitsFor(t, o, shortly(t), p, target)
		cancel()
		if out := <-leaver; out.err == nil {
			t.Error("the waiter that left got the lock")
		}
		must(t, held.Release(bg))
		must(t, (<-next).get(t).Release(bg))
	})
}

// A waiter whose ticket was lost with its session takes another.
func TestPoolTicketGoesWithItsSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p, target := observe(t), newPool(t, openDB(t, driver), pglock.WithHeartbeat(100*time.Millisecond)), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		got := waitsFor(t, o, shortly(t), p, target)
		o.kill(one[int](t, o.db, "SELECT pid FROM pg_locks WHERE objsubid = 2 AND mode = 'ExclusiveLock' AND (classid::bigint << 32 | objid::bigint) & -262144 = $1::bigint", pglock.TicketSpace(target)))
		o.wantTickets(target, 1)
		must(t, held.Release(bg))
		must(t, (<-got).get(t).Release(bg))
	})
}

// A Close that comes while somebody waits leaves no place in line on a connection
// that it gives back.
func TestPoolCloseLeavesNoTicket(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target, db := observe(t), newTarget(t), openDB(t, driver)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		for range 5 {
			p, err := pglock.NewPool(db)
			must(t, err)
			got := waitsFor(t, o, bg, p, target)
			must(t, p.Close(bg))
			if out := <-got; out.err == nil {
				t.Error("the waiter got the lock")
			}
			if n := o.tickets(target); n != 0 {
				t.Fatalf("got %d tickets after Close, want none", n)
			}
		}
		must(t, held.Release(bg))
	})
}

// A Close that waits for a holder refuses everybody else at once.
func TestPoolCloseRefusesAtOnce(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newPool(t, openDB(t, driver))
		held := acquired(t, p, newTarget(t))
		closed := make(chan error, 1)
		go func() { closed <- p.Close(shortly(t)) }()
		eventually(t, "new work is refused", func() bool {
			l, err := p.TryAcquire(bg, newTarget(t))
			if err == nil {
				l.Release(bg)
			}
			return err != nil && !errors.Is(err, swanlock.ErrNotAcquired)
		})
		must(t, held.Err())
		must(t, held.Release(bg))
		must(t, <-closed)
	})
}

// A waiter whose ticket was taken, but was lost in the same turn, does not stay in
// the pool's queue, where it would be the first for ever.
func TestPoolTicketIsLostInItsTurn(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, err := pglock.NewPool(openDB(t, driver)) // newPool would miss the connection that is lost so
		must(t, err)
		target := newTarget(t)
		must(t, acquired(t, p, newTarget(t)).Release(bg))
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		ctx, cancel := context.WithTimeout(bg, time.Second)
		defer cancel()
		wantIs(t, p.WaitThenPanic(ctx, target), swanlock.ErrNotAcquired)
		eventually(t, "nobody waits", func() bool { return p.Stats().Waiters == 0 })
		must(t, held.Release(bg))
		must(t, acquired(t, p, target).Release(bg))
		must(t, p.Close(bg))
	})
}
