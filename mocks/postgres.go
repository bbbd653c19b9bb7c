package mocks

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/swanlake-io/swanlock/pglock"
)

// A Postgres is a PostgreSQL that answers by script. The Expect methods of this
// package say what pglock will want, in this order; neither the SQL nor how many
// statements or round trips it takes is the test's business. It is a
// sqlmock.Sqlmock as well, so that the statements of the test's own subject take
// their place in the same script:
//
//	pg.ExpectTryAcquire("billing").Granted()
//	pg.ExpectExec("UPDATE invoices").WillReturnResult(sqlmock.NewResult(0, 3))
//	pg.ExpectRelease("billing")
//
// After an error pglock asks more, that no test has to script: whether the lock
// is held after all, to undo that, or to unlock once more. The answers are
// true, unless the next expectation is for that very question. Everything else
// that is not expected fails the test, and so does an expectation that is not
// met by its end. So do requests that a PostgreSQL would grant but a lock must
// not send: to take what the session holds already, or to refresh or release
// another lock than was granted.
//
// Its methods may be called by several goroutines at once, but those of
// sqlmock.Sqlmock only before the subject runs. What a driver does with a
// statement that its context cuts short is not shown: that takes a real server.
type Postgres struct {
	sqlmock.Sqlmock

	t     testing.TB
	db    *sql.DB
	inner driver.Conn // go-sqlmock's: it keeps the order

	mu       sync.Mutex
	over     bool // the test is
	steps    map[string]*step
	order    []*step
	asked    *question // by the statement under way
	met      *step     // what go-sqlmock found for it
	theirs   bool      // it found an expectation of the test's own instead
	stays    map[pglock.Key]bool
	sessions []*session
	config   config
	fence    uint64
	audit    int64
}

// config is what the server has for the two settings.
type config struct{ idle, idleInTransaction string }

// firstPID is the process id of the first session's backend.
const firstPID = 4001

// NewConn returns a connection and the script that answers on it. The script is
// checked, and the connection closed, when the test ends.
func NewConn(t testing.TB) (*sql.Conn, *Postgres) {
	t.Helper()
	pg := &Postgres{t: t, steps: make(map[string]*step), stays: make(map[pglock.Key]bool), config: config{"0", "0"}}
	mockDB, mock, err := sqlmock.New(sqlmock.QueryMatcherOption(sqlmock.QueryMatcherFunc(pg.match)))
	if err != nil {
		t.Fatalf("mocks: %v", err)
	}
	pg.Sqlmock = mock
	mockConn, err := mockDB.Conn(context.Background())
	if err == nil {
		err = mockConn.Raw(func(c any) error { pg.inner = c.(driver.Conn); return nil })
	}
	if err != nil {
		t.Fatalf("mocks: %v", err)
	}
	pg.db = sql.OpenDB(connector{pg})
	conn, err := pg.db.Conn(context.Background())
	if err != nil {
		t.Fatalf("mocks: %v", err)
	}
	t.Cleanup(func() {
		t.Helper()
		pg.finish()
		closed := make(chan struct{})
		go func() {
			conn.Close()
			close(closed)
		}()
		select {
		case <-closed:
		case <-time.After(patience):
			t.Errorf("mocks: the connection is still in use: close its Rows")
		}
		pg.db.Close()
		mockConn.Close()
		mockDB.Close() // go-sqlmock calls that unexpected
	})
	return conn, pg
}

// patience is how long the end of a test waits for what still uses its
// connection.
const patience = time.Second

// DB is the pool that the connection is from, for a subject that takes its own.
// Each connection is a session of its own; they share the script.
func (pg *Postgres) DB() *sql.DB { return pg.db }

// Holds reports whether some session holds the lock on target, by what the
// script has granted and what was released since.
func (pg *Postgres) Holds(target string) bool {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	for _, s := range pg.sessions {
		if _, ok := s.held[pglock.KeyOf(target)]; ok {
			return true
		}
	}
	return false
}

// Ended reports whether a session has ended: pglock destroys one that cannot
// say whether it holds a lock, and an error that is driver.ErrBadConn is an end
// too.
func (pg *Postgres) Ended() bool {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	for _, s := range pg.sessions {
		if s.ended {
			return true
		}
	}
	return false
}

// SetConfig sets what idle_session_timeout or idle_in_transaction_session_timeout
// is on every session; both start as "0". An idle_session_timeout of "" makes the
// server one that does not know it, as before PostgreSQL 14.
func (pg *Postgres) SetConfig(name, value string) {
	pg.t.Helper()
	pg.mu.Lock()
	defer pg.mu.Unlock()
	set := pg.config.setting(name)
	if set == nil {
		pg.t.Fatalf("mocks: no setting %q here", name)
	}
	*set = value
	for _, s := range pg.sessions {
		*s.config.setting(name) = value
		if s.tx != nil {
			*s.tx.base.setting(name), *s.tx.before.setting(name) = value, value
		}
	}
}

// CurrentSetting is what such a setting is now on the session of the first
// connection: a lease sets it, and the last release puts it back.
func (pg *Postgres) CurrentSetting(name string) string {
	pg.t.Helper()
	pg.mu.Lock()
	defer pg.mu.Unlock()
	set := pg.sessions[0].config.setting(name)
	if set == nil {
		pg.t.Fatalf("mocks: no setting %q here", name)
	}
	return *set
}

func (c *config) setting(name string) *string {
	switch name {
	case "idle_session_timeout":
		return &c.idle
	case "idle_in_transaction_session_timeout":
		return &c.idleInTransaction
	}
	return nil
}

// expect adds a step to the script: go-sqlmock knows it by a text that the
// matcher finds again.
func (pg *Postgres) expect(v verb, target string) *step {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	s := &step{pg: pg, verb: v, target: target}
	s.id = fmt.Sprintf("%s (%d)", s, len(pg.order)+1)
	pg.steps[s.id] = s
	pg.order = append(pg.order, s)
	pg.ExpectQuery(s.id).WillReturnRows(sqlmock.NewRows(nil))
	return s
}

// match is go-sqlmock's query matcher. pg.mu is held.
func (pg *Postgres) match(expected, actual string) error {
	s := pg.steps[expected]
	if s == nil {
		err := sqlmock.QueryMatcherRegexp.Match(expected, actual)
		pg.theirs = pg.theirs || err == nil
		return err
	}
	if pg.asked == nil {
		return fmt.Errorf("next in the script is %s", s)
	}
	if !s.accepts(pg.asked) {
		return fmt.Errorf("next in the script is %s, not %s", s, pg.asked.verb)
	}
	pg.met = s
	return nil
}

// failf fails the test, unless it is over. pg.mu is held.
func (pg *Postgres) failf(format string, args ...any) {
	if !pg.over {
		pg.t.Helper()
		pg.t.Errorf("mocks: "+format, args...)
	}
}

// finish checks the script at the end of the test.
func (pg *Postgres) finish() {
	pg.t.Helper()
	pg.mu.Lock()
	defer pg.mu.Unlock()
	var unmet []string
	for _, s := range pg.order {
		if !s.met {
			unmet = append(unmet, s.String())
		}
	}
	if len(unmet) > 0 {
		pg.failf("expected, and never asked for: %s", strings.Join(unmet, ", "))
	} else if err := pg.ExpectationsWereMet(); err != nil {
		pg.failf("%v", err)
	}
	pg.over = true
}

// next tells what the script has next. pg.mu is held.
func (pg *Postgres) next() string {
	for _, s := range pg.order {
		if !s.met {
			return s.String()
		}
	}
	return "nothing"
}
