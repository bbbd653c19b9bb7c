package pginspect_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pginspect"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestHistoryPages: the pages are the whole history, in order, each record once,
// also of records that began at the same time, and while others come.
func TestHistoryPages(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		must(t, migrate(on))
		var ids []int64
		for i := range 25 {
			ids = append(ids, addRow(t, on, fmt.Sprintf("/a/%d", i%2), "me", time.Hour, time.Minute))
		}
		exec(t, on, "UPDATE lock_audit SET acquired_at = now() - interval '1 hour', refreshed_at = now(), released_at = now() WHERE id = ANY ($1::bigint[])",
			"{"+strings.Trim(strings.ReplaceAll(fmt.Sprint(ids[5:20]), " ", ","), "[]")+"}")
		all := func(q pginspect.Query) (got []int64, pages int) {
			for {
				page, err := pginspect.History(bg, on, q)
				must(t, err)
				pages++
				for _, r := range page.Records {
					got = append(got, r.ID)
				}
				if page.Next == "" {
					return got, pages
				}
				q.After = page.Next
				addRow(t, on, "/a/0", "late", 0, 0)
			}
		}
		wanted := func(where string) (ids []int64) {
			rows, err := on.Query("SELECT id FROM lock_audit WHERE owner = 'me' AND " + where + " ORDER BY acquired_at DESC, id DESC")
			must(t, err)
			defer rows.Close()
			for rows.Next() {
				var id int64
				must(t, rows.Scan(&id))
				ids = append(ids, id)
			}
			return ids
		}
		for _, tt := range []struct {
			q     pginspect.Query
			where string
			pages int
		}{
			{pginspect.Query{Limit: 10, Owner: "me"}, "true", 3},
			{pginspect.Query{Limit: 25, Owner: "m?"}, "true", 1},
			{pginspect.Query{Limit: 5, Owner: "me", Target: "/a//0/"}, "target = '/a/0'", 3},
			{pginspect.Query{Limit: 5, Owner: "m*", Target: "*1"}, "target = '/a/1'", 3},
		} {
			got, pages := all(tt.q)
			if wanted := wanted(tt.where); !slices.Equal(got, wanted) || pages != tt.pages {
				t.Errorf("%+v: got %v in %d pages, want %v in %d", tt.q, got, pages, wanted, tt.pages)
			}
		}
		page, err := pginspect.History(bg, on, pginspect.Query{Owner: "me", Since: time.Now().Add(-2 * time.Hour), Until: time.Now().Add(-90 * time.Minute)})
		must(t, err)
		want(t, "records from before", len(page.Records), 0)
		page, err = pginspect.History(bg, on, pginspect.Query{Owner: "me", Until: time.Now()})
		must(t, err)
		want(t, "records until now", len(page.Records), 25)
		for _, bad := range []pginspect.Cursor{"x", "1", "1.x", "1.99999999999999999999", "9223372036854775807.1", "-9223372036854775808.1"} {
			if _, err := pginspect.History(bg, on, pginspect.Query{After: bad}); !errors.Is(err, pginspect.ErrCursor) {
				t.Errorf("cursor %q: %v", bad, err)
			}
		}
	})
}

// TestStates: a held lock is held, a released one has ended, and one whose
// holder died is orphaned.
func TestStates(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		last := func() pginspect.Record {
			page, err := pginspect.History(bg, on, pginspect.Query{Target: target, Limit: 1})
			must(t, err)
			return page.Records[0]
		}
		_, held := acquire(t, on, target, audited, swanlock.WithTTL(time.Minute))
		r := last()
		want(t, "state", r.State, pginspect.Held)
		want(t, "fence", r.Fence, held.Info().Fence)
		want(t, "ended", r.EndedAt.IsZero(), true)
		must(t, held.Release(bg))
		r = last()
		want(t, "state", r.State, pginspect.Ended)
		want(t, "end", r.End, "released")
		want(t, "ended", r.EndedAt.IsZero(), false)

		_, held = acquire(t, on, target, audited)
		pid := held.(*pglock.PostgresLock).BackendPID()
		exec(t, on, "SELECT pg_terminate_backend($1)", pid)
		eventually(t, "an orphan", func() bool { return last().State == pginspect.Orphaned })
		r = last()
		if r.NoticedAt.Before(r.AcquiredAt) || r.HeldFor(time.Now()) != 0 {
			t.Errorf("it is %+v", r)
		}
	})
}

// TestSucceeded: what Succeed has noted is in the record, in each way to read it.
func TestSucceeded(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		c := conn(t, on)
		s := pglock.NewSession(c, audited...)
		defer s.Close(bg)
		held, err := s.TryAcquire(bg, target)
		must(t, err)
		last := func(pattern string) pginspect.Record {
			page, err := pginspect.History(bg, on, pginspect.Query{Target: pattern, Limit: 1})
			must(t, err)
			return page.Records[0]
		}
		want(t, "before it is done", last(target).SucceededAt, time.Time{})
		must(t, pginspect.Succeed(bg, c, target))
		done := last(target).SucceededAt
		if r := last(target); r.State != pginspect.Held || done.Before(r.AcquiredAt) {
			t.Errorf("it is %+v", r)
		}
		now, err := pginspect.HeldAt(bg, on, one[time.Time](t, on, "SELECT clock_timestamp()"))
		must(t, err)
		i := slices.IndexFunc(now, func(r pginspect.Record) bool { return r.Target == target })
		want(t, "HeldAt", now[i].SucceededAt, done)
		must(t, held.Release(bg))
		r := last(target + "*")
		want(t, "by a pattern", r.SucceededAt, done)
		text, err := json.Marshal(r)
		must(t, err)
		if member := `"succeeded_at":"` + done.Format(time.RFC3339Nano) + `"`; !strings.Contains(string(text), member) {
			t.Errorf("%s does not have %s", text, member)
		}
	})
}

// TestStatesUnderLoad: what is taken and released all the time is never seen as
// orphaned.
func TestStatesUnderLoad(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		s := pglock.NewSession(conn(t, on), audited...)
		defer s.Close(bg)
		stop, done := make(chan struct{}), make(chan error)
		go func() {
			var err error
			for err == nil {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				var held swanlock.DistributedLock
				if held, err = s.TryAcquire(bg, target); err == nil {
					err = held.Release(bg)
				}
			}
			done <- err
		}()
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			page, err := pginspect.History(bg, on, pginspect.Query{Target: target, Limit: 10})
			must(t, err)
			now, err := pginspect.HeldAt(bg, on, time.Now())
			must(t, err)
			for _, r := range append(page.Records, now...) {
				if r.Target == target && r.State == pginspect.Orphaned {
					t.Errorf("%+v is orphaned", r)
				}
			}
		}
		close(stop)
		must(t, <-done)
	})
}

// TestSettled: a row whose lock is gone, and that is closed or opened only just
// now, is not orphaned. One that is open in both looks is.
func TestSettled(t *testing.T) {
	on := connect(t, "pgx", "")
	open := pginspect.Record{ID: 1, PID: 1, Key: 1, State: pginspect.Orphaned, AcquiredAt: time.Now().Add(-time.Hour)}
	ended, other := open, open
	ended.State, other.ID, other.Key = pginspect.Ended, 2, 2
	for _, tt := range []struct{ first, second, want pginspect.Record }{{open, ended, ended}, {open, other, other}, {open, open, open}, {ended, open, ended}} {
		looks := []pginspect.Record{tt.first, tt.second}
		records, err := pginspect.Settled(bg, on, func() ([]pginspect.Record, error) {
			defer func() { looks = looks[1:] }()
			return looks[:1:1], nil
		})
		must(t, err)
		wanted := tt.want.State
		if tt.want == other {
			wanted = pginspect.Held
		}
		want(t, "state", records[0].State, wanted)
	}
}

// TestHeldAt: of a moment are the holds that had begun and had not ended, and
// the open ones unless their TTL had passed.
func TestHeldAt(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		must(t, migrate(on))
		addRow(t, on, "over", "o", 60*time.Minute, 10*time.Minute)
		addRow(t, on, "during", "o", 60*time.Minute, 40*time.Minute)
		addRow(t, on, "later", "o", 20*time.Minute, time.Minute)
		addRow(t, on, "open", "o", 60*time.Minute, -1)
		id := addRow(t, on, "expired", "o", 60*time.Minute, -1)
		exec(t, on, "UPDATE lock_audit SET ttl_ms = 60000 WHERE id = $1", id)
		acquire(t, on, "now", audited)
		for _, tt := range []struct {
			ago  time.Duration
			want string
		}{
			{2 * time.Hour, ""},
			{59*time.Minute + 30*time.Second, "during:ended expired:orphaned open:orphaned over:ended"},
			{30 * time.Minute, "during:ended open:orphaned"},
			{0, "now:held open:orphaned"},
		} {
			records, err := pginspect.HeldAt(bg, on, one[time.Time](t, on, "SELECT clock_timestamp()").Add(-tt.ago))
			must(t, err)
			var got []string
			for _, r := range records {
				got = append(got, r.Target+":"+string(r.State))
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("%v ago: got %q, want %q", tt.ago, got, tt.want)
			}
		}
	})
}

// TestNoAudit: without the table the history says what to do.
func TestNoAudit(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		for name, f := range map[string]func() error{
			"History": func() error { _, err := pginspect.History(bg, on, pginspect.Query{}); return err },
			"HeldAt":  func() error { _, err := pginspect.HeldAt(bg, on, time.Now()); return err },
			"Prune":   func() error { _, err := pginspect.Prune(bg, on, pginspect.PruneQuery{Before: time.Now()}); return err },
		} {
			if err := f(); !errors.Is(err, pginspect.ErrNoAudit) {
				t.Errorf("%s: got %v, want %v", name, err, pginspect.ErrNoAudit)
			}
		}
	})
}

// TestSchema: the audit's table is found in another schema, and by a database
// that has the first migration alone.
func TestSchema(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		exec(t, on, `CREATE SCHEMA "An ""odd"" one"`)
		exec(t, on, fmt.Sprintf("ALTER DATABASE %s SET search_path = 'An \"odd\" one'", one[string](t, on, "SELECT current_database()")))
		on = connect(t, driver, one[string](t, on, "SELECT current_database()"))
		migrateTo(t, on, 1)
		for range 2 {
			_, held := acquire(t, on, "odd", audited)
			want(t, "kind", of(t, on, "odd")[0].Kind, pginspect.Audited)
			must(t, held.Release(bg))
			page, err := pginspect.History(bg, on, pginspect.Query{Target: "odd"})
			must(t, err)
			want(t, "end", page.Records[0].End, "released")
			_, err = pginspect.HeldAt(bg, on, time.Now())
			must(t, err)
			_, err = pginspect.History(bg, on, pginspect.Query{Target: "o*"})
			must(t, err)
			must(t, migrate(on))
		}
	})
}

// FuzzGlob: a pattern matches the same names here as on the server, where it is
// one of LIKE.
func FuzzGlob(f *testing.F) {
	for _, seed := range [][2]string{{"*", "x"}, {"a*b?c", "aXXbYc"}, {`a\*`, "a*"}, {`a\\`, `a\`}, {"100%", "100%"}, {"a_", "ab"}, {`\`, `\`}, {`\a`, `\a`}, {"**a*", "ba"}, {"ü?", "üé"}, {"", "x"}, {"\xe3\xa3", "\xa2"}} {
		f.Add(seed[0], seed[1])
	}
	on := connect(f, "postgres", "")
	f.Fuzz(func(t *testing.T, pattern, name string) {
		like, got := pginspect.Globbed(pattern, name)
		if strings.ContainsRune(pattern+name, 0) || !utf8.ValidString(pattern) || !utf8.ValidString(name) {
			return
		}
		if want := one[bool](t, on, "SELECT $1::text LIKE $2::text", name, like); pattern != "" && got != want {
			t.Errorf("%q matches %q: here %v, on the server %v (as %q)", pattern, name, got, want, like)
		}
	})
}

// TestPrune: Prune deletes what ended before, and orphans, and
// nothing else; it can be cut short and goes on later.
func TestPrune(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		must(t, migrate(on))
		for range 95 {
			addRow(t, on, "old", "o", 100*day, time.Hour)
		}
		addRow(t, on, "orphan", "o", 100*day, -1)
		addRow(t, on, "long", "o", 100*day, 99*day)
		addRow(t, on, "young", "o", day, time.Hour)
		_, held := acquire(t, on, "held", audited)
		exec(t, on, "UPDATE lock_audit SET acquired_at = now() - interval '100 days', refreshed_at = now() - interval '100 days' WHERE target = 'held'")
		left := func() string {
			return one[string](t, on, "SELECT string_agg(DISTINCT target, ' ' ORDER BY target) || ' ' || count(*) FROM lock_audit")
		}
		q := pginspect.PruneQuery{Before: time.Now().Add(-90 * day), Batch: 10}

		ctx, cancel := contextWithCancel()
		batches := 0
		q.Progress = func(p pginspect.Pruned) {
			want(t, "total", p.Total, int64(98))
			if batches++; batches == 3 {
				cancel()
			}
		}
		done, err := pginspect.Prune(ctx, on, q)
		if err == nil || done.Deleted != 30 || batches != 3 {
			t.Errorf("cut short: %+v, %v after %d batches", done, err, batches)
		}
		want(t, "left", left(), "held long old orphan young 69")
		q.Progress = nil
		done, err = pginspect.Prune(bg, on, q)
		must(t, err)
		want(t, "deleted", done.Deleted, int64(66))
		want(t, "left", left(), "held long young 3")
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		done, err = pginspect.Prune(bg, on, q)
		must(t, err)
		want(t, "deleted", done.Deleted, int64(0))
	})
}

// TestPruneLetsAcquiresBy: nothing that a holder does waits for Prune, even if its
// transaction does not end, and if an orphan that it deletes is of that target.
func TestPruneLetsAcquiresBy(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		must(t, migrate(on))
		addRow(t, on, "t", "old", 100*24*time.Hour, time.Hour)
		addRow(t, on, "t", "orphan", 100*24*time.Hour, -1)
		tx, err := on.BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		done, err := pginspect.Prune(bg, tx, pginspect.PruneQuery{Before: time.Now().Add(-90 * 24 * time.Hour)})
		must(t, err)
		want(t, "deleted", done.Deleted, int64(2))
		_, held := acquire(t, on, "t", audited)
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		must(t, tx.Commit())
		want(t, "rows", one[int](t, on, "SELECT count(*) FROM lock_audit"), 1)
	})
}
