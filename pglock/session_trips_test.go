package pglock_test

import (
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

var tripOptions = []struct {
	name string
	opts []swanlock.Option
}{
	{"plain", nil},
	{"shared", []swanlock.Option{swanlock.WithShared()}},
	{"TTL", []swanlock.Option{swanlock.WithTTL(time.Minute)}},
	{"fence", []swanlock.Option{swanlock.WithFence()}},
	{"all", []swanlock.Option{swanlock.WithTTL(time.Minute), swanlock.WithFence(), swanlock.WithOwner("me")}},
}

// TestRoundTrips counts them. A warm Session takes one for each call, whatever
// the options. Fact 20.
func TestRoundTrips(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for session, audit := range map[string][]pglock.SessionOption{"": nil, " audited": {pglock.WithAudit()}} {
			for _, c := range tripOptions {
				t.Run(c.name+session, func(t *testing.T) {
					p := newProxy(t)
					s := pglock.NewSession(connOf(t, openURL(t, driver, p.url)), audit...)
					other, _ := newSession(t, driver)
					var held swanlock.DistributedLock
					var err error
					target, taken := newTarget(t), newTarget(t)
					acquired(t, other, taken)
					calls := []struct {
						name string
						call func() error
					}{
						{"a try that is granted", func() error { held, err = s.TryAcquire(bg, target, c.opts...); return err }},
						{"a refresh", func() error { return held.Refresh(bg) }},
						{"a try that is refused", func() error { _, err := s.TryAcquire(bg, taken, c.opts...); return not(err, swanlock.ErrNotAcquired) }},
						{"a try of what the session holds", func() error {
							_, err := s.TryAcquire(bg, target, c.opts...)
							return not(err, swanlock.ErrAlreadyHeld)
						}},
						{"a release", func() error { return held.Release(bg) }},
						{"a wait for what is free", func() error { held, err = s.Acquire(bg, target, c.opts...); return err }},
						{"another release", func() error { return held.Release(bg) }},
						{"a second release", func() error { held.Release(bg); return nil }},
					}
					for _, call := range calls { // warm up
						must(t, call.call())
					}
					for _, call := range calls {
						want := 1
						if call.name == "a second release" {
							want = 0
						}
						if got := p.trips(t, func() { err = call.call() }); got != want || err != nil {
							t.Errorf("%s took %d round trips (error %v), want %d", call.name, got, err, want)
						}
					}
				})
			}
		}
	})
}

// TestRoundTripsInLine: a warm Session in line for a lock takes a ticket, and waits for
// its turn; with these statements it also gets its place's lease, and the lock without
// one.
func TestRoundTripsInLine(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, target := newProxy(t), newTarget(t)
		s := pglock.NewSession(connOf(t, openURL(t, driver, p.url)))
		holder, _ := newSession(t, driver)
		least := 1000
		for range 10 { // A wait that takes long is sent in pieces.
			held := acquired(t, holder, target)
			var got outcome
			trips := p.trips(t, func() {
				time.AfterFunc(150*time.Millisecond, func() { held.Release(bg) }) // What it knew of the line is old by then.
				got = outcomeOf(s.Acquire(shortly(t), target))
			})
			must(t, got.get(t).Release(bg))
			least = min(least, trips)
		}
		if least != 2 {
			t.Errorf("a wait in line took %d round trips, want 2", least)
		}
	})
}

// not returns nil for the error that is wanted.
func not(err, want error) error {
	if errors.Is(err, want) {
		return nil
	}
	return err
}

// TestRoundTripsFresh: the first try on a connection takes no more round trips
// than the driver itself needs for two queries with an argument, the mark and the
// try, by each of the ways to acquire. A Session prepares even where the driver
// does not: four. The second Session on it takes two: the mark is there.
func TestRoundTripsFresh(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p := newProxy(t)
		db := openURL(t, driver, p.url)
		fresh := func() *sql.Conn { return connOf(t, db) }
		conn := fresh()
		driverNeeds := p.trips(t, func() { one[int](t, conn, "SELECT $1::int", 1) })
		for _, by := range acquirers {
			most, again := 2*driverNeeds, driverNeeds
			if by.name != "functions" {
				most, again = 4, 2
			}
			for _, c := range tripOptions {
				conn := fresh()
				for _, most := range []int{most, again} {
					l := by.with(conn)
					if got := p.trips(t, func() { acquired(t, l, newTarget(t), c.opts...) }); got > most {
						t.Errorf("%s, %s: %d round trips on a fresh connection, want at most %d", by.name, c.name, got, most)
					}
				}
			}
		}
	})
}

// TestPoolTripsOnTheOnlyConnection: a Pool that gives back the only connection after
// each lock begins a session for each, which costs what docs/limits.md says.
func TestPoolTripsOnTheOnlyConnection(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		proxy := newProxy(t)
		db := openURL(t, driver, proxy.url)
		db.SetMaxOpenConns(1)
		p, target := newPool(t, db), newTarget(t)
		pair := func() {
			must(t, acquired(t, p, target).Release(bg))
			one[int](t, db, "SELECT 1") // once the connection is back
		}
		pair()
		if got := proxy.trips(t, pair); got < 10 || got > 20 {
			t.Errorf("a pair took %d round trips, want about 15", got)
		}
	})
}

// TestRoundTripsOfFunctions: the package's functions prepare nothing, so a call takes
// what a query with arguments takes: one round trip with pgx, which keeps its
// statements, and with lib/pq two, or one with binary_parameters.
func TestRoundTripsOfFunctions(t *testing.T) {
	t.Parallel()
	p := newProxy(t)
	for _, c := range []struct {
		driver, params string
		want           int
	}{{"postgres", "", 2}, {"postgres", "&binary_parameters=yes", 1}, {"pgx", "", 1}} {
		conn := connOf(t, openURL(t, c.driver, p.url+c.params))
		target := newTarget(t)
		cycle := func() {
			held, err := pglock.TryAcquire(bg, conn, target)
			must(t, err)
			must(t, held.Refresh(bg))
			must(t, held.Release(bg))
		}
		cycle()
		if got := p.trips(t, cycle); got != 3*c.want {
			t.Errorf("%s%s: try, refresh and release took %d round trips, want %d", c.driver, c.params, got, 3*c.want)
		}
	}
}
