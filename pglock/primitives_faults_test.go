package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/multilock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
	"github.com/swanlake-io/swanlock/semaphore"
)

// A primitive is a way to hold a target that is built on a locker. hold returns the
// lock, and leave, which gives it up; parts are the keys that it holds.
type primitive struct {
	name  string
	hold  func(t *testing.T, l swanlock.Locker, target string, opts ...swanlock.Option) (held swanlock.DistributedLock, leave func())
	parts func(target string) []string
}

var primitives = []primitive{
	{"multilock", func(t *testing.T, l swanlock.Locker, target string, opts ...swanlock.Option) (swanlock.DistributedLock, func()) {
		held, err := multilock.Acquire(shortly(t), l, []string{target, target + "/beside"}, opts...)
		must(t, err)
		return held, func() { held.Release(bg) }
	}, func(target string) []string { return []string{target, target + "/beside"} }},
	{"semaphore", func(t *testing.T, l swanlock.Locker, target string, opts ...swanlock.Option) (swanlock.DistributedLock, func()) {
		held, err := semaphore.New(l, 2).Weighted(2).Acquire(shortly(t), target, opts...)
		must(t, err)
		return held, func() { held.Release(bg) }
	}, func(target string) []string { return []string{target + "/place-0", target + "/place-1"} }},
	{"election", func(t *testing.T, l swanlock.Locker, target string, opts ...swanlock.Option) (swanlock.DistributedLock, func()) {
		leads, ended := make(chan swanlock.DistributedLock), make(chan struct{})
		ctx, cancel := context.WithCancel(bg)
		go func() {
			defer close(ended)
			election.Run(ctx, l, target, func(ctx context.Context) error {
				held, _ := election.Lock(ctx)
				leads <- held
				<-ctx.Done()
				return election.ErrResign
			}, election.WithLockOptions(opts...))
		}()
		select {
		case held := <-leads:
			return held, func() { cancel(); <-ended }
		case <-time.After(soon):
			cancel()
			t.Fatal("nobody leads")
			return nil, nil
		}
	}, func(target string) []string { return []string{target} }},
}

// TestPrimitivesCutOff: the network of a holder falls silent. Another has the
// target within the TTL and what a busy machine takes, and the holder knew before.
func TestPrimitivesCutOff(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, p := range primitives {
			t.Run(p.name, func(t *testing.T) {
				t.Parallel()
				px, target := newProxy(t), newTarget(t)
				far, near := newPool(t, openURL(t, driver, px.url), pglock.WithLogger(nil)), newPool(t, openDB(t, driver))
				held, leave := p.hold(t, far, target, swanlock.WithTTL(time.Second), swanlock.WithAutoRefresh())
				px.Silence()
				_, next := p.hold(t, near, target)
				if held.Err() == nil {
					t.Error("another has it, and the holder does not know")
				}
				next()
				px.Resume()
				leave()
			})
		}
	})
}

// TestPrimitivesThroughAPause: the server stands still for 3 s. With a longer TTL
// all is held afterwards, and nobody else has it.
func TestPrimitivesThroughAPause(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		srv, o, pool, locks := locksOnOwnServer(t, driver)
		defer releaseMany(t, locks)
		target := newTarget(t)
		var holds []swanlock.DistributedLock
		for _, p := range primitives {
			held, leave := p.hold(t, pool, target+"/"+p.name, swanlock.WithTTL(time.Minute))
			defer leave()
			holds = append(holds, held)
		}
		tx, err := openURL(t, driver, srv.URL()).BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		_, err = pglock.TryAcquireTx(bg, tx, target)
		must(t, err)
		resume := pgtest.Pause(t, srv)
		time.Sleep(3 * time.Second)
		resume()
		keys := []string{target}
		for i, p := range primitives {
			keys = append(keys, p.parts(target+"/"+p.name)...)
			if err := holds[i].Err(); err != nil {
				t.Errorf("%s: %v", p.name, err)
			}
		}
		for _, key := range keys {
			if n := len(o.holders(key)); n != 1 {
				t.Errorf("%d sessions hold %s, want 1", n, key)
			}
		}
		must(t, tx.Commit())
		o.wantSoonFree(target)
	})
}

// TestTxFaults: the lock of a transaction is free when its session was killed or its
// network cut, the transaction cannot be committed then, and another that waits for
// the lock has it.
func TestTxFaults(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, fault := range map[string]func(o observer, px *proxy, pid int){
			"kill": func(o observer, _ *proxy, pid int) { o.kill(pid) },
			"cut":  func(_ observer, px *proxy, _ int) { px.CloseAll() },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o, px, target := observe(t), newProxy(t), newTarget(t)
				tx, err := openURL(t, driver, px.url).BeginTx(bg, nil)
				must(t, err)
				defer tx.Rollback()
				_, err = pglock.TryAcquireTx(bg, tx, target)
				must(t, err)
				pids := o.holders(target)
				if len(pids) != 1 {
					t.Fatalf("%d sessions hold it", len(pids))
				}
				next := make(chan error, 1)
				ctx := shortly(t)
				db := openDB(t, driver)
				go func() { next <- inTx(ctx, db, target) }()
				fault(o, px, pids[0])
				must(t, <-next)
				if err := tx.Commit(); err == nil {
					t.Error("a transaction whose session has ended was committed")
				}
				o.wantSoonFree(target)
			})
		}
	})
}

// inTx waits for the target in a transaction, and commits that.
func inTx(ctx context.Context, db *sql.DB, target string) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := pglock.AcquireTx(ctx, tx, target); err != nil {
		return err
	}
	return tx.Commit()
}

// TestElectionWithOpenRows: a leader's lock that cannot be released, since the function
// that led has left Rows open on the connection, is released when they are closed, and
// the process campaigns again.
func TestElectionWithOpenRows(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		session, conn := newSession(t, driver)
		terms := 0
		err := election.Run(shortly(t), session, newTarget(t), func(context.Context) error {
			if terms++; terms == 2 {
				return election.ErrResign
			}
			rows, err := conn.QueryContext(bg, "SELECT generate_series(1, 100000)")
			must(t, err)
			rows.Next()
			time.AfterFunc(time.Second/2, func() { rows.Close() })
			return nil
		}, election.OnError(func(err error) {
			if !errors.Is(err, pglock.ErrBusy) {
				t.Errorf("got %v, want ErrBusy", err)
			}
		}))
		if err != nil || terms != 2 {
			t.Errorf("Run: %v, after %d terms", err, terms)
		}
	})
}
