package pglock_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

// The tests in the files script_*_test.go run on a scripted PostgreSQL: they make
// it do what a real one seldom does. pg checks itself that each statement of the
// script was sent, and none besides.

// A scripted is pglock on such a server.
type scripted struct {
	*testing.T
	pg   *mocks.Postgres
	conn *sql.Conn
	l    swanlock.Locker
	log  *logBook
}

var scriptedLockers = map[string]func(*sql.Conn, *slog.Logger) swanlock.Locker{
	"functions": func(conn *sql.Conn, _ *slog.Logger) swanlock.Locker { return mockFunctions{conn} },
	"session":   func(conn *sql.Conn, log *slog.Logger) swanlock.Locker { return newScriptedSession(conn, log) },
	"audited": func(conn *sql.Conn, log *slog.Logger) swanlock.Locker {
		return newScriptedSession(conn, log, pglock.WithAudit())
	},
}

func newScripted(t *testing.T, locker string) *scripted {
	conn, pg := mocks.NewConn(t)
	log := &logBook{}
	return &scripted{t, pg, conn, scriptedLockers[locker](conn, slog.New(slog.NewTextHandler(log, nil))), log}
}

// onScript runs f for both ways to a connection: the package functions, which
// prepare nothing, and a Session, which does.
func onScript(t *testing.T, f func(s *scripted)) {
	for _, name := range []string{"functions", "session"} {
		t.Run(name, func(t *testing.T) { f(newScripted(t, name)) })
	}
}

// inTime is onScript in a bubble, where an hour passes at once. Locks must end
// in it: what is left of them is cleaned up outside.
func inTime(t *testing.T, f func(s *scripted)) {
	for _, name := range []string{"functions", "session"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(newScripted(t, name)) })
		})
	}
}

func newScriptedSession(conn *sql.Conn, log *slog.Logger, opts ...pglock.SessionOption) *pglock.Session {
	return pglock.NewSession(conn, append(opts, pglock.WithLogger(log))...)
}

// take acquires target, which the script grants here.
func (s *scripted) take(target string, opts ...swanlock.Option) swanlock.DistributedLock {
	s.Helper()
	s.pg.ExpectTryAcquire(target)
	lock, err := s.l.TryAcquire(context.Background(), target, opts...)
	if err != nil {
		s.Fatal(err)
	}
	return lock
}

// fail wants the try that the script has next to fail.
func (s *scripted) fail(want error, opts ...swanlock.Option) {
	s.Helper()
	lock, err := s.l.TryAcquire(context.Background(), "t", opts...)
	s.is(err, want)
	if lock != nil {
		s.Errorf("an error, and a lock: %v", lock)
	}
	if s.pg.Holds("t") {
		s.Error("an error, and the lock is held")
	}
}

// is wants err to match all of wants.
func (s *scripted) is(err error, wants ...error) {
	s.Helper()
	for _, want := range wants {
		if !errors.Is(err, want) {
			s.Errorf("got %v, want %v", err, want)
		}
	}
}

// over wants lock to have ended so.
func (s *scripted) over(lock swanlock.DistributedLock, wants ...error) {
	s.Helper()
	s.is(lock.Err(), wants...)
	select {
	case <-lock.Done():
	default:
		s.Error("Done is not closed")
	}
}

// alive wants lock to be held.
func (s *scripted) alive(lock swanlock.DistributedLock) {
	s.Helper()
	if err := lock.Err(); err != nil {
		s.Errorf("not held: %v", err)
	}
	select {
	case <-lock.Done():
		s.Error("Done is closed")
	default:
	}
}

// destroyed wants the session to have ended, or not.
func (s *scripted) destroyed(want bool) {
	s.Helper()
	if got := s.pg.Ended(); got != want {
		s.Errorf("the session is destroyed: %v, want %v", got, want)
	}
	if want {
		s.is(s.conn.PingContext(context.Background()), sql.ErrConnDone)
	}
}

func (s *scripted) settings() string {
	return s.pg.CurrentSetting("idle_session_timeout") + ", " + s.pg.CurrentSetting("idle_in_transaction_session_timeout")
}

func (s *scripted) wantSettings(want string) {
	s.Helper()
	if got := s.settings(); got != want {
		s.Errorf("the settings are %q, want %q", got, want)
	}
}

type mockFunctions struct{ conn *sql.Conn }

func (f mockFunctions) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return notNil(pglock.TryAcquire(ctx, f.conn, target, opts...))
}

func (f mockFunctions) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return notNil(pglock.Acquire(ctx, f.conn, target, opts...))
}

func notNil(l *pglock.PostgresLock, err error) (swanlock.DistributedLock, error) {
	if l == nil {
		return nil, err
	}
	return l, err
}

// A logBook keeps what is logged.
type logBook struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBook) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

// count is how many lines have text.
func (b *logBook) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for line := range strings.Lines(b.buf.String()) {
		if strings.Contains(line, text) {
			n++
		}
	}
	return n
}
