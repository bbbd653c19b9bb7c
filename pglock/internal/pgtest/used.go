package pgtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"slices"
	"sync"
	"testing"
	"time"
)

// A usedDBs keeps the *sql.DBs of tests that have ended for those that begin: a new
// connection costs more than most of what is tested on it. It is for many small
// tests that do nothing to their connections but to lock on them.
type usedDBs struct {
	mu   sync.Mutex
	free map[string][]*sql.DB // by driver
}

var used usedDBs

// UsedDB is OpenDB for a *sql.DB that may have been an earlier test's, which has left
// nothing on it. Nobody else has it until t ends.
func UsedDB(t testing.TB, driver string) *sql.DB {
	t.Helper()
	u := &used
	if slices.Contains(OnRequest, driver) {
		return OpenURL(t, driver, Server(t).URL())
	}
	u.mu.Lock()
	var db *sql.DB
	if n := len(u.free[driver]); n > 0 {
		db, u.free[driver] = u.free[driver][n-1], u.free[driver][:n-1]
	}
	u.mu.Unlock()
	if db == nil {
		var err error
		db, err = sql.Open(driver, Server(t).URL())
		Must(t, err)
		db.SetMaxIdleConns(usedIdle)
	}
	t.Cleanup(func() {
		if t.Failed() || !asNew(db) {
			db.Close()
			return
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.free == nil {
			u.free = make(map[string][]*sql.DB)
		}
		u.free[driver] = append(u.free[driver], db)
	})
	return db
}

func (u *usedDBs) close() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, dbs := range u.free {
		for _, db := range dbs {
			db.Close()
		}
	}
	u.free = nil
}

// usedIdle is how many connections they keep.
const usedIdle = 8

// asNew gives db the limits of a new one, and its sessions the settings of new ones. It
// reports whether its connections are as new ones too: none is in use, and their
// sessions have no locks.
func asNew(db *sql.DB) bool {
	db.SetMaxOpenConns(0)
	db.SetMaxIdleConns(usedIdle)
	db.SetConnMaxLifetime(0)
	db.SetConnMaxIdleTime(0)
	if st := db.Stats(); st.InUse > 0 || st.Idle == 0 { // the test may have closed it
		return false
	}
	ctx, cancel := context.WithTimeout(Background, 5*time.Second)
	defer cancel()
	for range db.Stats().Idle {
		conn, err := db.Conn(ctx)
		if err != nil {
			return false
		}
		defer conn.Close()
		var left int
		_, err = conn.ExecContext(ctx, "RESET ALL")
		if err == nil {
			err = conn.QueryRowContext(ctx, "SELECT count(*) FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND pid = pg_catalog.pg_backend_pid()").Scan(&left)
		}
		if err != nil { // it was killed
			conn.Raw(func(any) error { return driver.ErrBadConn })
		} else if left > 0 {
			return false
		}
	}
	return true
}

// withoutUsed closes them after the tests, and what all observers share.
type withoutUsed struct{ tests interface{ Run() int } }

func (w withoutUsed) Run() int {
	code := w.tests.Run()
	used.close()
	sharedObserver.close()
	return code
}
