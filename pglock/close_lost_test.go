package pglock_test

import (
	"database/sql"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestReleaseAfterCloseFoundItLost: Close finds that a lock is lost. Its holder's
// Release says so, too, as Err does.
func TestReleaseAfterCloseFoundItLost(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		ended, _ := cancelled()
		for _, locker := range []struct {
			name  string
			begin func(*sql.DB) (swanlock.Locker, func() error)
		}{
			{"Pool", func(db *sql.DB) (swanlock.Locker, func() error) {
				p, err := pglock.NewPool(db)
				must(t, err)
				return p, func() error { return p.Close(ended) }
			}},
			{"Session", func(db *sql.DB) (swanlock.Locker, func() error) {
				s := pglock.NewSession(connOf(t, db))
				return s, func() error { return s.Close(bg) }
			}},
		} {
			for name, lose := range map[string]func(*pglock.PostgresLock) error{
				"killed":   func(l *pglock.PostgresLock) error { observe(t).kill(l.BackendPID()); return nil },
				"unlocked": func(l *pglock.PostgresLock) error { return pglock.Sabotage(l) },
				"nothing":  func(*pglock.PostgresLock) error { return nil },
			} {
				t.Run(locker.name+" "+name, func(t *testing.T) {
					l, end := locker.begin(openDB(t, driver))
					held := acquired(t, l, newTarget(t))
					must(t, lose(held))
					end()
					err := held.Release(bg)
					if name == "nothing" {
						must(t, err)
						wantIs(t, held.Err(), swanlock.ErrReleased)
					} else {
						wantIs(t, held.Err(), swanlock.ErrLost)
						wantIs(t, err, swanlock.ErrLost)
					}
					must(t, held.Release(bg))
				})
			}
		}
	})
}
