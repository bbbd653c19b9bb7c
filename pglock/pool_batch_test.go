package pglock_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// slowPool is a Pool that is warm and whose next answers take their time.
func slowPool(t *testing.T, driver string, opts ...pglock.PoolOption) (*pglock.Pool, *proxy) {
	t.Helper()
	proxy := newProxy(t)
	p := newPool(t, openURL(t, driver, proxy.url), append(opts, pglock.WithHeartbeat(time.Hour))...)
	for range 2 {
		must(t, acquired(t, p, newTarget(t)).Release(bg))
	}
	return p, proxy
}

// together does all calls while first is under way, so that they share the next
// statement.
func together(first func(), calls ...func()) {
	var wg sync.WaitGroup
	wg.Go(first)
	time.Sleep(50 * time.Millisecond)
	for _, call := range calls {
		wg.Go(call)
	}
	wg.Wait()
}

// A batch that fails may have been done in part: the locks that it granted are
// given back, those that it did not unlock are unlocked, and the session and
// its other locks live.
func TestPoolBatchFails(t *testing.T) {
	t.Parallel()
	for _, where := range []string{"while it locks", "while it unlocks"} {
		t.Run(where, func(t *testing.T) {
			slow, bad := newTarget(t), newTarget(t)
			lock, unlock := int64(pglock.KeyOf(bad)), int64(0)
			if where == "while it unlocks" {
				lock, unlock = unlock, lock
			}
			schema := map[string]string{"while it locks": "batch_locks", "while it unlocks": "batch_unlocks"}[where]
			fails := `CREATE FUNCTION %s.pg_%s(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
				BEGIN
					IF k = %d THEN PERFORM pg_sleep(0.4); END IF;
					IF k = %d AND nextval('%[1]s.calls') = 1 THEN RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014'; END IF;
					RETURN pg_catalog.pg_%[2]s(k);
				END $$;`
			db := evilDB(t, "pgx", schema, fmt.Sprintf(fails, schema, "try_advisory_lock", int64(pglock.KeyOf(slow)), lock)+
				fmt.Sprintf(fails, schema, "advisory_unlock", 0, unlock))
			o, p := observe(t), newPool(t, db, pglock.WithHeartbeat(time.Hour))
			kept, left := acquired(t, p, newTarget(t)), acquired(t, p, newTarget(t))
			last := left
			if where == "while it unlocks" {
				last = acquired(t, p, bad)
			} else {
				last = acquired(t, p, newTarget(t))
			}
			targets := []string{newTarget(t), bad, newTarget(t)}
			if where == "while it unlocks" {
				targets = []string{newTarget(t), newTarget(t)}
			}
			var calls []func()
			for _, held := range []swanlock.DistributedLock{left, last} {
				calls = append(calls, func() {
					if err := held.Release(bg); err != nil {
						t.Errorf("a release: got %v, want nil", err)
					}
				})
			}
			for _, target := range targets {
				calls = append(calls, func() {
					if _, err := p.TryAcquire(bg, target); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
						t.Errorf("an acquire: got %v, want what the server said", err)
					}
				})
			}
			together(func() { acquired(t, p, slow).Release(bg) }, calls...)
			for _, target := range append(targets, left.Info().Target, last.Info().Target) {
				o.wantHeld(target)
			}
			o.wantHeld(kept.Info().Target, backendOf(kept))
			must(t, kept.Refresh(bg))
			must(t, kept.Release(bg))
		})
	}
}

// Of the callers that share a statement each is told the server's answer to its
// own request.
func TestPoolBatchAnswersEach(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, proxy := slowPool(t, driver)
		holder, _ := newSession(t, driver)
		theirs := acquired(t, holder, newTarget(t))
		locks := holdMany(t, p, newTarget(t), 3)
		must(t, pglock.Sabotage(locks[1]))
		proxy.delay.Store(int64(200 * time.Millisecond))
		var calls []func()
		for i, l := range locks {
			calls = append(calls, func() {
				if err := l.Release(bg); errors.Is(err, swanlock.ErrLost) != (i == 1) {
					t.Errorf("lock %d, of which the second was taken away: got Release %v", i, err)
				}
			})
		}
		for _, target := range []string{newTarget(t), theirs.Info().Target, newTarget(t)} {
			calls = append(calls, func() {
				l, err := p.TryAcquire(bg, target)
				if (target == theirs.Info().Target) != errors.Is(err, swanlock.ErrNotAcquired) {
					t.Errorf("%s, which another holds if it is %s: got %v", target, theirs.Info().Target, err)
				}
				if err == nil {
					l.Release(bg)
				}
			})
		}
		together(func() { acquired(t, p, newTarget(t)).Release(bg) }, calls...)
		proxy.delay.Store(0)
		must(t, theirs.Release(bg))
	})
}

// A heartbeat finds a lock that was exchanged for another, though their number
// is the same, and unlocks the one that is not in the ledger.
func TestPoolFindsAnExchange(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, p := observe(t), newPool(t, openDB(t, driver), pglock.WithHeartbeat(time.Hour))
		locks, stranger := holdMany(t, p, newTarget(t), 2), newTarget(t)
		must(t, pglock.Exchange(locks[0], pglock.KeyOf(stranger)))
		o.wantHeld(stranger, backendOf(locks[0]))
		must(t, locks[1].Refresh(bg))
		wantIs(t, locks[0].Err(), swanlock.ErrLost)
		o.wantHeld(stranger)
		wantIs(t, locks[0].Release(bg), swanlock.ErrLost)
		must(t, locks[1].Release(bg))
	})
}

// A lock that is granted after its caller has left is given back.
func TestPoolLateGrant(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		p, proxy := slowPool(t, driver)
		proxy.delay.Store(int64(150 * time.Millisecond))
		ctx, cancel := context.WithTimeout(bg, 30*time.Millisecond)
		defer cancel()
		held, err := p.TryAcquire(ctx, target)
		if held != nil {
			t.Error("got a lock after the context had ended")
		}
		wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		o.wantHeld(target)
		proxy.delay.Store(0)
	})
}

// A caller whose context ends does not wait for another caller's statement.
func TestPoolLeavesTheQueue(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, proxy := slowPool(t, driver)
		late := watchScheduler(t)
		proxy.muted.Store(true)
		first := make(chan error, 1)
		go func() {
			l, err := p.TryAcquire(bg, newTarget(t))
			if err == nil {
				err = l.Release(bg)
			}
			first <- err
		}()
		time.Sleep(50 * time.Millisecond)
		ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
		defer cancel()
		start := time.Now()
		_, err := p.TryAcquire(ctx, newTarget(t))
		wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		if took := time.Since(start); took > 2*time.Second+late() {
			t.Errorf("it took %v, with a context of 50 ms: it waited for another's statement", took)
		}
		proxy.muted.Store(false)
		if err := <-first; err != nil && !errors.Is(err, swanlock.ErrNotAcquired) { // the session that was cut may have it still
			t.Error(err)
		}
	})
}

// The second caller is refused before anything is sent, and does not stand in
// the way of the first.
func TestPoolClaims(t *testing.T) {
	t.Parallel()
	p, target := newPool(t, openDB(t, "pgx")), newTarget(t)
	rest, err := p.SplitTry(bg, target)
	must(t, err)
	for _, opts := range [][]swanlock.Option{nil, {swanlock.WithShared()}} {
		_, err = p.SplitTry(bg, target, opts...)
		wantIs(t, err, swanlock.ErrNotAcquired)
	}
	held, err := rest()
	must(t, err)
	must(t, held.Release(bg))
}

// A server that falls silent is found by the heartbeat: its locks are lost.
func TestPoolSilentServer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		proxy := newProxy(t)
		p := newPool(t, openURL(t, driver, proxy.url), pglock.WithHeartbeat(100*time.Millisecond), pglock.WithLogger(nil))
		held := acquired(t, p, newTarget(t))
		proxy.muted.Store(true)
		wantIs(t, ended(t, held), swanlock.ErrLost)
		wantIs(t, held.Release(bg), swanlock.ErrLost)
		proxy.muted.Store(false)
		proxy.CloseAll() // lib/pq waits for the answer to a new connection without a bound
	})
}
