package pglock_test

import (
	"context"
	"database/sql"
	"log/slog"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
	"weak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A logged keeps what was logged.
type logged struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *logged) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// dropLock takes a lock and drops its handle. It returns what remains of it.
//
//go:noinline
func dropLock(t *testing.T, l swanlock.Locker, target string, opts ...swanlock.Option) <-chan struct{} {
	return acquired(t, l, target, opts...).Done()
}

// collected runs the garbage collector until done is closed.
func collected(t *testing.T, done <-chan struct{}) {
	t.Helper()
	eventually(t, "the dropped lock was found", func() bool {
		runtime.GC()
		select {
		case <-done:
			return true
		default:
			return false
		}
	})
}

// TestLockDropped: a lock whose handle is dropped is found by the garbage collector
// and logged. Nothing is sent in the background, but the next call on the
// session frees it, whatever it is.
func TestLockDropped(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, audit := range []bool{false, true} {
			for name, next := range map[string]func(t *testing.T, s *pglock.Session, conn *sql.Conn, other *pglock.PostgresLock){
				"TryAcquire": func(t *testing.T, s *pglock.Session, _ *sql.Conn, _ *pglock.PostgresLock) {
					acquired(t, s, newTarget(t))
				},
				"TryAcquire of another": func(t *testing.T, _ *pglock.Session, conn *sql.Conn, _ *pglock.PostgresLock) {
					acquired(t, functions{conn}, newTarget(t))
				},
				"Refresh": func(t *testing.T, _ *pglock.Session, _ *sql.Conn, other *pglock.PostgresLock) {
					must(t, other.Refresh(bg))
				},
				"Release": func(t *testing.T, _ *pglock.Session, _ *sql.Conn, other *pglock.PostgresLock) {
					must(t, other.Release(bg))
				},
				"Close": func(t *testing.T, s *pglock.Session, _ *sql.Conn, _ *pglock.PostgresLock) { must(t, s.Close(bg)) },
			} {
				t.Run(name, func(t *testing.T) {
					o, target := observe(t), newTarget(t)
					conn := dial(t, driver)
					pid := pidOf(t, conn)
					log := &logged{}
					opts := []pglock.SessionOption{pglock.WithLogger(slog.New(slog.NewTextHandler(log, nil)))}
					if audit {
						opts = append(opts, pglock.WithAudit())
					}
					s := pglock.NewSession(conn, opts...)
					other := acquired(t, s, newTarget(t))
					collected(t, dropLock(t, s, target))
					for _, want := range []string{"level=WARN", target[:40], "dropped"} { // a long target is shown in part
						eventually(t, "the log has "+want, func() bool { return strings.Contains(log.String(), want) })
					}
					o.wantHeld(target, pid)
					next(t, s, conn, other)
					o.wantHeld(target)
					if audit {
						o.wantReasons(target, "released")
					}
					runtime.KeepAlive(other)
				})
			}
		}
	})
}

// TestLockDroppedWithTTL: the server frees it, since nobody refreshes it.
func TestLockDroppedWithTTL(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		s, _ := newSession(t, driver, pglock.WithLogger(slog.New(slog.DiscardHandler)))
		collected(t, dropLock(t, s, target, swanlock.WithTTL(500*time.Millisecond)))
		o.wantSoonFree(target)
	})
}

// TestLockDroppedAutoRefresh: a lock that is refreshed in the background would live
// for ever, so it is freed in the background.
func TestLockDroppedAutoRefresh(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		s, conn := newSession(t, driver, pglock.WithLogger(slog.New(slog.DiscardHandler)))
		collected(t, dropLock(t, s, target, swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh()))
		o.wantSoonFree(target)
		if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
			t.Errorf("idle_session_timeout is %s, want the caller's own again", got)
		}
	})
}

// TestLockDroppedAfterBusy: a lock that Do could not release, since Rows were open, is
// found when its handle is dropped. It would be refreshed for ever.
func TestLockDroppedAfterBusy(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		s, conn := newSession(t, driver, pglock.WithLogger(slog.New(slog.DiscardHandler)))
		var rows *sql.Rows
		err := swanlock.Do(bg, s, target, func(context.Context, swanlock.DistributedLock) (err error) {
			rows, err = conn.QueryContext(bg, manyRows)
			return err
		}, swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
		wantIs(t, err, pglock.ErrBusy)
		must(t, rows.Close())
		eventually(t, "it is free", func() bool {
			runtime.GC()
			return len(o.holders(target)) == 0
		})
	})
}

// TestLockReleasedIsNotDropped: nothing is logged for a lock that was released.
func TestLockReleasedIsNotDropped(t *testing.T) {
	t.Parallel()
	log := &logged{}
	s, _ := newSession(t, "pgx", pglock.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
	for range 20 {
		must(t, acquired(t, s, newTarget(t), swanlock.WithTTL(time.Minute)).Release(bg))
	}
	for range 5 {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	if log.String() != "" {
		t.Errorf("logged: %s", log)
	}
}

// TestLedgerIsCollected: what this process knows of a session goes with the
// driver's connection, however its locks ended.
func TestLedgerIsCollected(t *testing.T) {
	lives := map[string]func(t *testing.T, o observer, conn *sql.Conn){
		"released": func(t *testing.T, _ observer, conn *sql.Conn) {
			must(t, acquired(t, quiet(conn), newTarget(t)).Release(bg))
		},
		"refused": func(t *testing.T, o observer, conn *sql.Conn) {
			held := acquired(t, pglock.NewSession(dial(t, "pgx")), t.Name())
			_, err := quiet(conn).TryAcquire(bg, t.Name())
			wantIs(t, err, swanlock.ErrNotAcquired)
			must(t, held.Release(bg))
		},
		"dropped": func(t *testing.T, _ observer, conn *sql.Conn) {
			dropLock(t, quiet(conn), newTarget(t), swanlock.WithTTL(time.Hour))
		},
		"killed": func(t *testing.T, o observer, conn *sql.Conn) {
			pid := pidOf(t, conn)
			dropLock(t, quiet(conn), newTarget(t), swanlock.WithTTL(time.Hour))
			o.kill(pid)
		},
		"killed, found out": func(t *testing.T, o observer, conn *sql.Conn) {
			held := acquired(t, quiet(conn), newTarget(t), swanlock.WithTTL(time.Hour))
			o.kill(held.BackendPID())
			wantIs(t, held.Release(bg), swanlock.ErrLost)
		},
		"expired": func(t *testing.T, _ observer, conn *sql.Conn) {
			<-dropLock(t, quiet(conn), newTarget(t), swanlock.WithTTL(time.Second))
		},
		"closed with a lock on it": func(t *testing.T, _ observer, conn *sql.Conn) {
			dropLock(t, quiet(conn), newTarget(t))
			conn.Close()
		},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		for name, life := range lives {
			t.Run(name, func(t *testing.T) {
				o := o.in(t)
				db := openDB(t, driver)
				id := func() weak.Pointer[byte] { // which keeps nothing alive
					conn := connOf(t, db)
					must(t, acquired(t, quiet(conn), newTarget(t)).Release(bg))
					id := pglock.LedgerID(conn)
					if !pglock.HasLedger(id) {
						t.Error("there is no ledger")
					}
					life(t, o, conn)
					conn.Close()
					return id
				}()
				db.Close()
				eventually(t, "the ledger is gone", func() bool {
					runtime.GC()
					return !pglock.HasLedger(id)
				})
			})
		}
	})
}

// quiet logs nothing.
func quiet(conn *sql.Conn) *pglock.Session {
	return pglock.NewSession(conn, pglock.WithLogger(slog.New(slog.DiscardHandler)))
}
