package pglock_test

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// A bouncer is pgtest's, with an observer of this package's.
type bouncer struct {
	pgtest.Bouncer
	url    string
	direct observer // past the pooler
}

func pgBouncer(t *testing.T, mode string, settings ...string) bouncer {
	t.Helper()
	b := pgtest.PgBouncer(t, mode, settings...)
	return bouncer{b, b.URL, observer{t, b.Direct.DB}}
}

func (b bouncer) in(t *testing.T) bouncer {
	b.Direct, b.direct = b.Direct.In(t), b.direct.in(t)
	return b
}

func (b bouncer) conn(t *testing.T, driver string) *sql.Conn { t.Helper(); return b.Conn(t, driver) }

// TestPgBouncerSession: in session mode all is as without a pooler, and what a client leaves goes with it.
func TestPgBouncerSession(t *testing.T) {
	eachDriver(t, func(t *testing.T, name string) {
		b := pgBouncer(t, "session")
		t.Run("conformance", func(t *testing.T) {
			if testing.Short() {
				t.Skip("the suite takes 15 s")
			}
			newLocker := func(t *testing.T) swanlock.Locker { return pglock.NewSession(b.conn(t, name)) }
			locktest.Run(t, newLocker, locktest.ShortTTL(600*time.Millisecond), locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
				b.direct.in(t).kill(held.(*pglock.PostgresLock).BackendPID())
			}))
		})
		for _, by := range acquirers {
			t.Run(by.name, func(t *testing.T) {
				o, target := b.direct.in(t), newTarget(t)
				conn := b.conn(t, name)
				held := acquired(t, by.with(conn), target, swanlock.WithTTL(time.Minute))
				must(t, held.Refresh(bg))
				o.wantHeld(target, held.BackendPID())
				_, err := by.with(b.conn(t, name)).TryAcquire(bg, target)
				wantIs(t, err, swanlock.ErrNotAcquired)
				must(t, held.Release(bg))

				held = acquired(t, by.with(conn), target, swanlock.WithTTL(time.Minute))
				conn.Raw(func(c any) error { // the client's end
					hangUp(c)
					return driver.ErrBadConn
				})
				o.wantSoonFree(target)
				held.Release(bg)
				b.WantClean(t, name)
			})
		}
	})
}

// TestPgBouncerTransaction: in transaction and statement mode the first call that meets another server connection than
// the one with the lock on it finds that out, and leaves nothing on either.
func TestPgBouncerTransaction(t *testing.T) {
	finders := map[string]func(s swanlock.Locker, held *pglock.PostgresLock) error{
		"Refresh": func(_ swanlock.Locker, held *pglock.PostgresLock) error { return held.Refresh(bg) },
		"Release": func(_ swanlock.Locker, held *pglock.PostgresLock) error { return held.Release(bg) },
		"TryAcquire": func(l swanlock.Locker, held *pglock.PostgresLock) error {
			_, err := l.TryAcquire(bg, held.Info().Target)
			return err
		},
		"Close": func(l swanlock.Locker, held *pglock.PostgresLock) error {
			if s, ok := l.(*pglock.Session); ok {
				return s.Close(bg)
			}
			return held.Release(bg) // the functions have none
		},
	}
	eachDriver(t, func(t *testing.T, driver string) {
		for _, mode := range []string{"transaction", "statement"} {
			b := pgBouncer(t, mode)
			for _, by := range acquirers {
				for finder, find := range finders {
					for _, ttl := range []time.Duration{0, time.Minute} {
						t.Run(fmt.Sprintf("%s %s %s with TTL %v", mode, by.name, finder, ttl), func(t *testing.T) {
							b := b.in(t)
							b.Forget(t)
							l, target := by.with(b.conn(t, driver)), newTarget(t)
							held := acquired(t, l, target, swanlock.WithTTL(ttl))
							b.direct.wantHeld(target, held.BackendPID())
							b.Occupy(t, held.BackendPID())
							wantIs(t, find(l, held), pglock.ErrPooler)
							wantIs(t, held.Err(), pglock.ErrPooler, swanlock.ErrLost)
							b.WantClean(t, driver)
							_, err := l.TryAcquire(bg, target)
							if err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
								t.Errorf("got %v from a connection that was given up", err)
							}
						})
					}
				}
			}
		}
	})
}

// TestPgBouncerShared: two clients on one server connection are one session to PostgreSQL, which grants it a lock as often
// as it asks. What tells is that the statement which the second Session prepares is there already: it gets no lock, and the
// first learns at its next call that its own is gone.
func TestPgBouncerShared(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, mode := range []string{"transaction", "statement"} {
			t.Run(mode, func(t *testing.T) {
				b, target := pgBouncer(t, mode), newTarget(t)
				for _, by := range acquirers {
					t.Run(by.name, func(t *testing.T) {
						held := acquired(t, by.with(b.conn(t, driver)), target)
						_, err := by.with(b.conn(t, driver)).TryAcquire(bg, target)
						wantIs(t, err, pglock.ErrPooler)
						b.direct.in(t).wantHeld(target, held.BackendPID())
						must(t, held.Err())
						held.Release(bg)
						b.Forget(t) // with what it has prepared
					})
				}
				b.WantClean(t, driver)
			})
		}
	})
}

// TestPoolBehindAFreshPgBouncer: in transaction mode a Pool is refused at its first acquire also where the pooler
// has one server connection, on which both of the Pool's connections would prepare the same statement.
func TestPoolBehindAFreshPgBouncer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		b := pgBouncer(t, "transaction")
		p := newPool(t, openURL(t, driver, b.url))
		target := newTarget(t)
		_, err := p.TryAcquire(bg, target)
		wantIs(t, err, pglock.ErrPooler)
		b.direct.wantHeld(target)
	})
}
