package pglock_test

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A sessionState is what a caller would notice on the connection.
type sessionState struct {
	pid, locks, prepared, listens int
	settings                      string
}

// stateOf asks for it in one statement, so that a driver that keeps statements
// is not seen to keep this one.
func stateOf(t *testing.T, conn *sql.Conn) (s sessionState) {
	t.Helper()
	const ask = `SELECT pg_backend_pid(),
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()),
		(SELECT count(*) FROM pg_prepared_statements WHERE from_sql OR statement LIKE '%pg_cata' || 'log.%'),
		(SELECT count(*) FROM pg_listening_channels()),
		(SELECT string_agg(name || '=' || setting, ',' ORDER BY name) FROM pg_settings)`
	must(t, conn.QueryRowContext(bg, ask).Scan(&s.pid, &s.locks, &s.prepared, &s.listens, &s.settings))
	return s
}

// TestTransactionBegunInLine: a transaction that the caller begins on the connection
// while Acquire waits there outlives the waits.
func TestTransactionBegunInLine(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		other, _ := newSession(t, driver)
		held := acquired(t, other, target)
		s, conn := newSession(t, driver)
		var l swanlock.DistributedLock
		got := make(chan error, 1)
		go func() {
			var err error
			l, err = s.Acquire(shortly(t), target)
			got <- err
		}()
		hash := pglock.TicketSpace(target)
		eventually(t, "Acquire waits in line", func() bool {
			return one[int](t, o.db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND classid = $1", uint32(hash>>32)) > 1
		})
		tx, err := conn.BeginTx(bg, nil)
		must(t, err)
		defer tx.Rollback()
		for range 15 {
			run(t, tx, "SELECT 1")
			time.Sleep(100 * time.Millisecond)
		}
		must(t, held.Release(bg))
		must(t, <-got)
		must(t, tx.Commit())
		must(t, l.Release(bg))
	})
}

// TestSessionLeavesConnectionAsItWas: whatever is done with locks on it, the connection that
// the caller lent is the same session as before, with the same settings, no
// statement prepared, and it works.
func TestSessionLeavesConnectionAsItWas(t *testing.T) {
	uses := map[string]func(t *testing.T, s *pglock.Session, target, taken string){
		"granted": func(t *testing.T, s *pglock.Session, target, _ string) {
			held := acquired(t, s, target, swanlock.WithTTL(time.Minute), swanlock.WithFence())
			must(t, held.Refresh(bg))
			must(t, held.Release(bg))
		},
		"refused": func(t *testing.T, s *pglock.Session, _, taken string) {
			_, err := s.TryAcquire(bg, taken, swanlock.WithTTL(time.Minute))
			wantIs(t, err, swanlock.ErrNotAcquired)
		},
		"given up": func(t *testing.T, s *pglock.Session, _, taken string) {
			ctx, cancel := context.WithTimeout(bg, 50*time.Millisecond)
			defer cancel()
			_, err := s.Acquire(ctx, taken, swanlock.WithTTL(time.Minute))
			wantIs(t, err, swanlock.ErrNotAcquired)
		},
		"already held": func(t *testing.T, s *pglock.Session, target, _ string) {
			acquired(t, s, target, swanlock.WithShared())
			_, err := s.TryAcquire(bg, target)
			wantIs(t, err, swanlock.ErrAlreadyHeld)
		},
		"left to Close": func(t *testing.T, s *pglock.Session, target, _ string) {
			acquired(t, s, target, swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
		},
		"too late": func(t *testing.T, s *pglock.Session, target, _ string) {
			for range 50 {
				ctx, cancel := context.WithTimeout(bg, 300*time.Microsecond)
				held, err := s.TryAcquire(ctx, target, swanlock.WithTTL(time.Minute))
				if err == nil {
					held.Release(bg)
				}
				cancel()
			}
		},
		"nothing": func(*testing.T, *pglock.Session, string, string) {},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		taken := newTarget(t)
		holder, _ := newSession(t, driver)
		acquired(t, holder, taken)
		for name, use := range uses {
			for session, audit := range map[string][]pglock.SessionOption{"": nil, " audited": {pglock.WithAudit()}} {
				t.Run(name+session, func(t *testing.T) {
					conn := dial(t, driver)
					run(t, conn, "SET idle_session_timeout = '1h'")
					run(t, conn, "LISTEN something")
					before := stateOf(t, conn)
					s := pglock.NewSession(conn, audit...)
					use(t, s, newTarget(t), taken)
					must(t, s.Close(bg))
					if after := stateOf(t, conn); after != before {
						t.Errorf("the session was %+v,\nand is %+v", before, after)
					}
				})
			}
		}
	})
}

// TestSessionInCallersTransaction: locks come and go inside the caller's transaction
// without ending it or giving it an id.
func TestSessionInCallersTransaction(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		conn := dial(t, driver)
		s := pglock.NewSession(conn)
		const id = "SELECT now()::text || COALESCE(pg_current_xact_id_if_assigned()::text, '')"
		tx, err := conn.BeginTx(bg, nil)
		must(t, err)
		before := one[string](t, tx, id)
		held := acquired(t, s, newTarget(t), swanlock.WithTTL(time.Minute))
		must(t, held.Refresh(bg))
		must(t, held.Release(bg))
		if after := one[string](t, tx, id); after != before {
			t.Errorf("the transaction was %s, and is %s", before, after)
		}
		must(t, tx.Commit())
	})
}

// TestSessionClose: a closed Session has freed its own locks, and only these, refuses
// to take more, and has nothing left to do.
func TestSessionClose(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, ctx := range map[string]func() context.Context{
			"": func() context.Context { return bg },
			" with a dead context": func() context.Context {
				ctx, _ := cancelled()
				return ctx
			},
		} {
			t.Run("Close"+name, func(t *testing.T) {
				o := observe(t)
				conn := dial(t, driver)
				pid := pidOf(t, conn)
				s, neighbour := pglock.NewSession(conn), pglock.NewSession(conn)
				mine, theirs := newTarget(t), newTarget(t)
				held := acquired(t, s, mine, swanlock.WithTTL(time.Minute))
				other := acquired(t, neighbour, theirs)
				must(t, s.Close(ctx()))
				o.wantHeld(mine)
				wantIs(t, ended(t, held), swanlock.ErrReleased)
				must(t, held.Release(bg))
				wantIs(t, held.Refresh(bg), swanlock.ErrReleased)
				o.wantHeld(theirs, pid)
				must(t, other.Refresh(bg))

				must(t, s.Close(bg))
				for _, acquire := range []func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){s.TryAcquire, s.Acquire} {
					if l, err := acquire(bg, mine); err == nil || l != nil || errors.Is(err, swanlock.ErrNotAcquired) {
						t.Errorf("a closed Session answered (%v, %v)", l, err)
					}
				}
				o.wantHeld(mine)
				must(t, other.Release(bg))
			})
		}
	})
}

// TestSessionCloseAfterConn: closing the connection before its Session is a mistake
// that Close reports, and the locks' holders are told.
func TestSessionCloseAfterConn(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		conn := dial(t, driver)
		s := pglock.NewSession(conn)
		held := acquired(t, s, newTarget(t))
		must(t, conn.Close())
		wantIs(t, s.Close(bg), sql.ErrConnDone)
		wantIs(t, held.Err(), swanlock.ErrLost, sql.ErrConnDone)
	})
}

// TestReleaseAfterConn: a lock whose connection was closed before it is lost, and its
// error says what the mistake was.
func TestReleaseAfterConn(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, call := range map[string]func(*pglock.PostgresLock) error{
			"Release": func(l *pglock.PostgresLock) error { return l.Release(bg) },
			"Refresh": func(l *pglock.PostgresLock) error { return l.Refresh(bg) },
		} {
			t.Run(name, func(t *testing.T) {
				conn := dial(t, driver)
				held, err := pglock.TryAcquire(bg, conn, newTarget(t))
				must(t, err)
				must(t, conn.Close())
				err = call(held)
				wantIs(t, err, swanlock.ErrLost, sql.ErrConnDone)
				if got := err.Error(); strings.Count(got, sql.ErrConnDone.Error()) != 1 || !strings.Contains(got, "closed before Release") {
					t.Errorf("got %q, want that the connection was closed before Release, once", got)
				}
			})
		}
	})
}

// TestSessionCloseWhileWaiting: an Acquire that waits does not outlive its Session,
// and takes no lock after it.
func TestSessionCloseWhileWaiting(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o, target := observe(t), newTarget(t)
		holder, _ := newSession(t, driver)
		held := acquired(t, holder, target)
		s, _ := newSession(t, driver)
		got := make(chan error, 8)
		for range cap(got) {
			go func() {
				_, err := s.Acquire(bg, target)
				got <- err
			}()
		}
		time.Sleep(20 * time.Millisecond)
		must(t, s.Close(bg))
		must(t, held.Release(bg))
		for range cap(got) {
			select {
			case err := <-got:
				if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
					t.Errorf("the waiter of a closed Session got %v", err)
				}
			case <-time.After(soon):
				t.Fatal("an Acquire still waits though its Session is closed")
			}
		}
		o.wantHeld(target)
	})
}

// TestSessionCloseRacesTry: a try that is under way when its Session is closed leaves
// nothing behind, whichever of the two was first.
func TestSessionCloseRacesTry(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		o := observe(t)
		conn := dial(t, driver)
		for range 100 {
			target := newTarget(t)
			s := pglock.NewSession(conn)
			tried := make(chan struct{})
			go func() {
				defer close(tried)
				s.TryAcquire(bg, target)
			}()
			must(t, s.Close(bg))
			<-tried
			o.wantHeld(target)
		}
		if n := stateOf(t, conn).prepared; n > 0 {
			t.Errorf("%d statements of closed Sessions are still prepared", n)
		}
	})
}
