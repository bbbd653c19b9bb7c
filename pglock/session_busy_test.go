package pglock_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// manyRows is more than a driver reads at once.
const manyRows = "SELECT i, repeat('x', 1000) FROM generate_series(1, 20000) i"

// TestReleaseBehindOpenRows: it sends nothing, and can be called again; neither the
// Rows nor the session's other locks are harmed. The same goes for Close.
func TestReleaseBehindOpenRows(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, how := range []string{"Release", "Close", "of one that has expired"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				o, conn := observe(t), dial(t, driver)
				keep := acquired(t, pglock.NewSession(conn), newTarget(t))
				s := pglock.NewSession(conn)
				var opts []swanlock.Option
				if how == "of one that has expired" {
					opts = append(opts, swanlock.WithTTL(8*time.Second))
				}
				l := acquired(t, s, newTarget(t), opts...)
				if opts != nil {
					time.Sleep(4 * time.Second)
					must(t, keep.Refresh(bg)) // the session lives, and the lock does not
					eventually(t, "it has expired", func() bool { return l.Err() != nil })
				}
				rows, err := conn.QueryContext(bg, manyRows)
				must(t, err)
				n := 0
				for n < 10 && rows.Next() {
					n++
				}
				end := func() error { return l.Release(bg) }
				switch how {
				case "Close":
					end = func() error { return s.Close(bg) }
				case "of one that has expired":
					end = func() error {
						_, err := s.TryAcquire(bg, newTarget(t))
						return err
					}
				}
				if err := end(); !errors.Is(err, pglock.ErrBusy) {
					t.Errorf("got %v, want ErrBusy", err)
				}
				for rows.Next() {
					n++
				}
				must(t, rows.Err())
				must(t, rows.Close())
				if n != 20000 {
					t.Errorf("%d rows were read, want 20000", n)
				}
				must(t, keep.Err())
				o.wantHeld(l.Info().Target, l.BackendPID())
				must(t, end())
				o.wantHeld(l.Info().Target)
				o.wantHeld(keep.Info().Target, keep.BackendPID())
				must(t, keep.Release(bg))
			})
		}
	})
}

// TestFirstCallBehindALongStatement: a context bounds also the call that first comes to
// a connection, and Close.
func TestFirstCallBehindALongStatement(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		conn := dial(t, driver)
		l, err := pglock.TryAcquire(bg, conn, newTarget(t), swanlock.WithTTL(time.Minute))
		must(t, err)
		used := pglock.NewSession(conn)
		must(t, acquired(t, used, newTarget(t)).Release(bg))
		done := make(chan struct{})
		go func() {
			defer close(done)
			conn.ExecContext(bg, "SELECT pg_sleep(6)")
		}()
		time.Sleep(300 * time.Millisecond)
		for name, call := range map[string]func(ctx context.Context) error{
			"TryAcquire": func(ctx context.Context) error {
				_, err := pglock.TryAcquire(ctx, conn, newTarget(t))
				return err
			},
			"Acquire": func(ctx context.Context) error {
				_, err := pglock.Acquire(ctx, conn, newTarget(t))
				return err
			},
			"a Session's first": func(ctx context.Context) error {
				_, err := pglock.NewSession(conn).TryAcquire(ctx, newTarget(t))
				return err
			},
			"Close":           func(ctx context.Context) error { used.Close(ctx); return ctx.Err() },
			"Close of unused": func(ctx context.Context) error { pglock.NewSession(conn).Close(ctx); <-ctx.Done(); return ctx.Err() },
		} {
			ctx, cancel := context.WithTimeout(bg, 200*time.Millisecond)
			if err := call(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: got %v, want the end of its context", name, err)
			}
			cancel()
			select {
			case <-done:
				t.Fatalf("%s has waited for the caller's statement", name)
			default:
			}
		}
		<-done
		must(t, l.Release(bg))
	})
}

// TestReleaseIsCancelled: a release whose statement is cancelled on the server reports no
// loss of a lock that it has freed itself.
func TestReleaseIsCancelled(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		schema := evilSchema("release", driver)
		db := evilDB(t, driver, schema, `CREATE FUNCTION `+schema+`.pg_advisory_unlock(k bigint) RETURNS boolean LANGUAGE plpgsql AS $$
			BEGIN
				IF nextval('`+schema+`.calls') % 2 = 1 THEN
					PERFORM pg_catalog.pg_advisory_unlock(k);
					RAISE EXCEPTION 'cancelled' USING ERRCODE = '57014';
				END IF;
				RETURN pg_catalog.pg_advisory_unlock(k);
			END $$`)
		o, s := observe(t), pglock.NewSession(connOf(t, db))
		for _, opts := range [][]swanlock.Option{nil, {swanlock.WithTTL(time.Minute)}} {
			l := acquired(t, s, newTarget(t), opts...)
			must(t, l.Release(bg))
			o.wantHeld(l.Info().Target)
		}
	})
}

// TestCloseTellsFirst: a holder whose lock somebody else closes knows of it before another
// can have the lock.
func TestCloseTellsFirst(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, how := range []string{"Session", "Pool"} {
			t.Run(how, func(t *testing.T) {
				t.Parallel()
				p, target := newProxy(t), newTarget(t)
				db := openURL(t, driver, p.url)
				ended, _ := cancelled()
				var l swanlock.DistributedLock
				var closeIt func()
				if how == "Session" {
					s := pglock.NewSession(connOf(t, db))
					l, closeIt = acquired(t, s, target, swanlock.WithTTL(time.Minute)), func() { s.Close(bg) }
				} else {
					pool, err := pglock.NewPool(db)
					must(t, err)
					l, closeIt = acquired(t, pool, target, swanlock.WithTTL(time.Minute)), func() { pool.Close(ended) }
				}
				other, _ := newSession(t, driver)
				p.delay.Store(int64(500 * time.Millisecond))
				done := make(chan struct{})
				go func() {
					defer close(done)
					closeIt()
				}()
				next, err := other.Acquire(shortly(t), target)
				must(t, err)
				if l.Err() == nil {
					t.Error("another has the lock, and its holder was not told")
				}
				must(t, next.Release(bg))
				p.delay.Store(0)
				<-done
			})
		}
	})
}

// TestRowsInTheMidst: the connection's owner may open Rows between two statements of
// one call, which then waits for them to be closed. Neither the session nor the
// Rows are harmed.
func TestRowsInTheMidst(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for name, opts := range map[string][]swanlock.Option{"plain": nil, "with TTL and fence": {swanlock.WithTTL(time.Minute), swanlock.WithFence()}} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				o, target := observe(t), newTarget(t)
				holder, _ := newSession(t, driver)
				held := acquired(t, holder, target)
				s, conn := newSession(t, driver)
				pid := pidOf(t, conn)
				got := waitsFor(t, o, shortly(t), s, target, opts...)
				stop, stopped := make(chan struct{}), make(chan struct{})
				go func() {
					defer close(stopped)
					for n := 0; ; n++ {
						select {
						case <-stop:
							return
						default:
						}
						rows, err := conn.QueryContext(bg, "SELECT 1")
						if err != nil {
							t.Errorf("the owner's statement %d: %v", n, err)
							return
						}
						time.Sleep(20 * time.Millisecond)
						for rows.Next() {
						}
						if err := errors.Join(rows.Err(), rows.Close()); err != nil {
							t.Errorf("the owner's rows %d: %v", n, err)
							return
						}
						time.Sleep(20 * time.Millisecond)
					}
				}()
				time.Sleep(2500 * time.Millisecond) // two waits in the server, or more
				must(t, held.Release(bg))
				out := <-got
				close(stop)
				<-stopped
				must(t, out.err)
				o.wantHeld(target, pid)
				must(t, out.held.Release(bg))
			})
		}
	})
}
