package pginspect_test

import (
	"context"
	"database/sql"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pginspect"
)

// A slowDB returns what the server has answered about the locks when go on is
// closed.
type slowDB struct {
	*sql.DB
	answered, goOn chan struct{}
}

func (s slowDB) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	rows, err := s.DB.QueryContext(ctx, query, args...)
	if strings.Contains(query, "k.waitstart") {
		close(s.answered)
		<-s.goOn
	}
	return rows, err
}

// TestWatcherOvertaken: a look that ends late does not bring back a lock that was
// released meanwhile, as a later look has seen. A hold that began after that has not
// lasted since the look.
func TestWatcherOvertaken(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, newDatabase(t)), newTarget(t)
		s, held := acquire(t, on, target, nil)
		var watcher pginspect.Watcher
		look := func(on pginspect.DB) (locks []pginspect.Lock) {
			locks, _, err := watcher.Look(bg, on)
			must(t, err)
			return slices.DeleteFunc(locks, func(l pginspect.Lock) bool { return !l.Here || l.Key != int64(swanlock.KeyOf(target)) })
		}
		slow := slowDB{on, make(chan struct{}), make(chan struct{})}
		late := make(chan []pginspect.Lock, 1)
		go func() { late <- look(slow) }()
		<-slow.answered
		must(t, held.Release(bg))
		want(t, "locks after the release", len(look(on)), 0)
		close(slow.goOn)
		want(t, "locks of the late look", len(<-late), 1)

		time.Sleep(50 * time.Millisecond)
		began := one[time.Time](t, on, "SELECT clock_timestamp()")
		again, err := s.TryAcquire(bg, target)
		must(t, err)
		l := look(on)
		want(t, "locks", len(l), 1)
		if l[0].HeldSince.Before(began) {
			t.Errorf("it is said to be held since %v, and was acquired after %v", l[0].HeldSince, began)
		}
		must(t, again.Release(bg))
	})
}
