package pglock_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// wantSound checks that in the whole audit no exclusive interval of a key overlaps
// another one, and that each key's fences rise.
func (o observer) wantSound() {
	o.t.Helper()
	if n := one[int](o.t, o.db, `SELECT count(*) FROM lock_audit a JOIN lock_audit b USING (key)
		WHERE a.id <> b.id AND 'exclusive' IN (a.mode, b.mode) AND a.acquired_at < b.acquired_at AND COALESCE(a.released_at, 'infinity') > b.acquired_at`); n != 0 {
		o.t.Errorf("%d pairs of intervals overlap", n)
	}
	if n := one[int](o.t, o.db, `SELECT count(*) FROM (SELECT fence, max(fence) OVER (PARTITION BY key ORDER BY acquired_at, id
		ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM lock_audit WHERE mode = 'exclusive') f WHERE fence <= before`); n != 0 {
		o.t.Errorf("%d fences do not rise", n)
	}
}

// eachAudit runs f on each driver, for Pools with the audit and without, in a
// database with its table.
func eachAudit(t *testing.T, f func(t *testing.T, driver, param string, o observer, opts ...pglock.PoolOption)) {
	t.Helper()
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		for name, opts := range map[string][]pglock.PoolOption{"plain": nil, "audited": {pglock.WithAudit()}} {
			t.Run(name, func(t *testing.T) { f(t, driver, param, o.in(t), opts...) })
		}
	})
}

// Acquires of all kinds, and releases, share one statement, and each caller gets
// its own answer: with a fence, a row with its very texts, as a reader.
func TestPoolBatchOfAllKinds(t *testing.T) {
	eachAudit(t, func(t *testing.T, driver, param string, o observer, opts ...pglock.PoolOption) {
		p := newPool(t, openDB(t, driver, param), append(opts, pglock.WithHeartbeat(time.Hour))...)
		audited := opts != nil
		taken := acquired(t, pglock.NewSession(dial(t, driver, param)), newTarget(t))
		first := acquired(t, p, newTarget(t), swanlock.WithFence())
		leaving := []*pglock.PostgresLock{acquired(t, p, newTarget(t)), acquired(t, p, newTarget(t), swanlock.WithShared())}
		room := newTarget(t)
		reader := acquired(t, p, room, swanlock.WithShared())
		odd := newTarget(t) + ` "it's", {a\b}, NULL, žluť ` + "\n\t"
		calls := []struct {
			target, owner string
			opts          []swanlock.Option
		}{
			{odd, `o"\{}`, nil},
			{newTarget(t), "NULL", []swanlock.Option{swanlock.WithTTL(time.Minute)}},
			{newTarget(t), "fenced", []swanlock.Option{swanlock.WithFence()}},
			{newTarget(t), "reader", []swanlock.Option{swanlock.WithShared()}},
			{room, "joins", []swanlock.Option{swanlock.WithShared()}},
			{room, "joins too", []swanlock.Option{swanlock.WithShared()}},
			{taken.Info().Target, "late", nil},
		}
		together := newTarget(t)
		calls = append(calls, calls[3], calls[3])
		calls[7].target, calls[8].target = together, together

		batches := p.Stats().Batches
		give := pglock.HoldTurn(first)
		var wg sync.WaitGroup
		locks := make([]swanlock.DistributedLock, len(calls))
		for i, call := range calls {
			wg.Go(func() {
				l, err := p.TryAcquire(bg, call.target, append(call.opts, swanlock.WithOwner(call.owner))...)
				if call.owner == "late" {
					if !errors.Is(err, swanlock.ErrNotAcquired) {
						t.Errorf("a lock that another session holds: got %v", err)
					}
					return
				}
				if err != nil {
					t.Errorf("%q: %v", call.target, err)
					return
				}
				locks[i] = l
			})
		}
		for _, l := range leaving {
			wg.Go(func() {
				if err := l.Release(bg); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(200 * time.Millisecond)
		give()
		wg.Wait()
		if t.Failed() {
			return
		}
		// The one with a TTL has a session of its own, and one op may have been sent before the others came.
		if got := p.Stats().Batches - batches; got > 2 {
			t.Errorf("got %d batches for what came together, want one or two", got)
		}
		for i, l := range locks {
			if l == nil {
				continue
			}
			mode := map[bool]string{true: "ShareLock", false: "ExclusiveLock"}[l.Info().Shared]
			if got := o.locks(calls[i].target); len(got) != 1 || got[backendOf(l)] != mode {
				t.Errorf("%q, held by %d: the server says %v", calls[i].target, backendOf(l), got)
			}
			if want := calls[i].owner == "fenced" || audited && !l.Info().Shared; (l.Info().Fence > first.Info().Fence) != want {
				t.Errorf("%q: got the fence %d after %d", calls[i].target, l.Info().Fence, first.Info().Fence)
			}
			if !audited {
				continue
			}
			rows := o.rows(calls[i].target)
			found := false
			for _, r := range rows {
				found = found || r.owner == calls[i].owner && r.target == calls[i].target && r.reason == "" && r.pid == backendOf(l) &&
					r.ttlMs == l.Info().TTL.Milliseconds() && (r.fence == int64(l.Info().Fence) || r.mode == "shared" && r.fence == -1) &&
					(r.mode == "shared") == l.Info().Shared
			}
			if !found {
				t.Errorf("%q of %q: the audit says %+v", calls[i].target, calls[i].owner, rows)
			}
		}
		give = pglock.HoldTurn(first)
		for _, l := range append(locks, reader) {
			if l != nil {
				wg.Go(func() {
					if err := l.Release(bg); err != nil {
						t.Error(err)
					}
				})
			}
		}
		time.Sleep(100 * time.Millisecond)
		give()
		wg.Wait()
		must(t, first.Release(bg))
		must(t, taken.Release(bg))
		for _, call := range calls {
			o.wantHeld(call.target)
			if audited && call.owner != "late" {
				for _, r := range o.rows(call.target) {
					if r.reason != "released" || r.released.Before(r.acquired) {
						t.Errorf("%q: the audit says %+v", call.target, r)
					}
				}
			}
		}
		o.wantSound()
	})
}

// What the server refuses to write for one caller fails for that caller alone.
func TestPoolBatchRefusesOne(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		_, err := o.db.ExecContext(bg, "ALTER TABLE lock_audit ADD CHECK (owner <> 'nobody')")
		must(t, err)
		p := newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(time.Hour))
		first, left := acquired(t, p, newTarget(t)), acquired(t, p, newTarget(t))
		give := pglock.HoldTurn(first)
		var wg sync.WaitGroup
		for i := range 8 {
			owner, target := fmt.Sprint(i), newTarget(t)
			if i == 3 {
				owner = "nobody"
			}
			wg.Go(func() {
				l, err := p.TryAcquire(bg, target, swanlock.WithOwner(owner))
				if i == 3 {
					if !errors.Is(err, pglock.ErrAudit) {
						t.Errorf("the one that the table refuses: got %v, want ErrAudit", err)
					}
					o.wantHeld(target)
					return
				}
				if err == nil {
					o.wantHeld(target, backendOf(l))
					err = l.Release(bg)
				}
				if err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
				o.wantReasons(target, "released")
			})
		}
		wg.Go(func() {
			if err := left.Release(bg); err != nil {
				t.Error(err)
			}
			o.wantReasons(left.Info().Target, "released")
		})
		time.Sleep(100 * time.Millisecond)
		give()
		wg.Wait()
		must(t, first.Release(bg))
		o.wantSound()
	})
}

// Refreshes that come together are one statement, and each row says so.
func TestPoolRefreshesTogether(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		param, o := auditDatabase(t)
		p := newPool(t, openDB(t, driver, param), pglock.WithAudit(), pglock.WithHeartbeat(time.Hour))
		target := newTarget(t)
		locks := holdMany(t, p, target, 10)
		must(t, locks[0].Refresh(bg)) // It prepares the statement.
		trips := p.Stats().RoundTrips
		give := pglock.HoldTurn(locks[0])
		var wg sync.WaitGroup
		for _, l := range locks {
			wg.Go(func() {
				if err := l.Refresh(bg); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(100 * time.Millisecond)
		give()
		wg.Wait()
		if got := p.Stats().RoundTrips - trips; got > 2 {
			t.Errorf("got %d round trips for ten refreshes, want one or two", got)
		}
		for i := range locks {
			if rows := o.rows(fmt.Sprintf("%s/%d", target, i)); len(rows) != 1 || !rows[0].refreshed.After(rows[0].acquired) {
				t.Errorf("lock %d: the audit says %+v", i, rows)
			}
		}
		must(t, pglock.Sabotage(locks[3])) // One that is lost fails alone.
		for i, l := range locks {
			if err := l.Refresh(bg); errors.Is(err, swanlock.ErrLost) != (i == 3) {
				t.Errorf("lock %d: got %v", i, err)
			}
		}
		for i, l := range locks {
			if err := l.Release(bg); errors.Is(err, swanlock.ErrLost) != (i == 3) {
				t.Errorf("release of lock %d: got %v", i, err)
			}
		}
		o.wantReasons(target+"/3", "lost")
	})
}
