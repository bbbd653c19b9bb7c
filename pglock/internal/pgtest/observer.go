package pgtest

import (
	"database/sql"
	"fmt"
	"slices"
	"sync"
	"testing"
)

// An Observer has sessions of its own, which read outcomes from the server.
type Observer struct {
	T  testing.TB
	DB *sql.DB
}

// Observe returns an observer of the shared server. The params are OpenDB's; without
// any it shares its sessions with others, and their settings must stay as they are.
func Observe(t testing.TB, params ...string) Observer {
	t.Helper()
	if len(params) == 0 {
		return Observer{t, sharedObserver.get(t)}
	}
	return Observer{t, OpenDB(t, "postgres", append(params, inBinary)...)}
}

const inBinary = "binary_parameters=yes"

// A lasting *sql.DB is opened once and closed after all tests: a new connection costs
// more than most of what an observer asks.
type lasting struct {
	mu sync.Mutex
	db *sql.DB
}

var sharedObserver lasting

func (l *lasting) get(t testing.TB) *sql.DB {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.db == nil {
		db, err := sql.Open("postgres", WithParams(t, Server(t).URL(), inBinary))
		Must(t, err)
		db.SetMaxIdleConns(16)
		l.db = db
	}
	return l.db
}

func (l *lasting) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.db != nil {
		l.db.Close()
	}
}

// In returns the same observer for a subtest.
func (o Observer) In(t testing.TB) Observer { return Observer{t, o.DB} }

// OfKey selects the pid and mode of the holders of the key $1 from pg_locks, as
// the documentation of pg_locks splits it.
const OfKey = `SELECT pid, mode FROM pg_catalog.pg_locks
	WHERE locktype = 'advisory' AND granted AND objsubid = 1
	AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
	AND (classid::bigint << 32) | objid::bigint = $1::bigint`

// Holders returns the backends that hold the key now, in the order of their
// process ids.
func (o Observer) Holders(key int64) []int {
	o.T.Helper()
	return Column[int](o.T, o.DB, "SELECT pid FROM ("+OfKey+") k ORDER BY pid", key)
}

// Modes returns the modes in which backends hold the key now.
func (o Observer) Modes(key int64) map[int]string {
	o.T.Helper()
	rows, err := o.DB.QueryContext(Background, OfKey, key)
	Must(o.T, err)
	defer rows.Close()
	modes := make(map[int]string)
	for rows.Next() {
		var pid int
		var mode string
		Must(o.T, rows.Scan(&pid, &mode))
		modes[pid] = mode
	}
	Must(o.T, rows.Err())
	return modes
}

// WantHeld checks that exactly these backends hold the key.
func (o Observer) WantHeld(key int64, pids ...int) {
	o.T.Helper()
	slices.Sort(pids)
	if got := o.Holders(key); !slices.Equal(got, pids) {
		o.T.Fatalf("the key %d is held by backends %v, want %v", key, got, pids)
	}
}

// WantSoonFree waits until nobody holds the key.
func (o Observer) WantSoonFree(key int64) {
	o.T.Helper()
	Eventually(o.T, fmt.Sprintf("the key %d is free", key), func() bool { return len(o.Holders(key)) == 0 })
}

// LocksOf counts the advisory locks of a backend.
func (o Observer) LocksOf(pid int) int {
	o.T.Helper()
	return One[int](o.T, o.DB, "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = $1::int", pid)
}

// Alive reports whether there is such a backend.
func (o Observer) Alive(pid int) bool {
	o.T.Helper()
	return One[bool](o.T, o.DB, "SELECT EXISTS (SELECT FROM pg_catalog.pg_stat_activity WHERE pid = $1::int)", pid)
}

// Kill ends a backend, and waits until it has ended.
func (o Observer) Kill(pid int) {
	o.T.Helper()
	One[bool](o.T, o.DB, "SELECT pg_terminate_backend($1::int)", pid)
	Eventually(o.T, "the backend has ended", func() bool { return !o.Alive(pid) })
}
