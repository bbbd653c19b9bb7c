package pglock_test

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestServerStandby: advisory locks work on a standby, in a lock space of its own, so
// every way to take one is refused there. Fact 15.
func TestServerStandby(t *testing.T) {
	t.Parallel()
	srv, err := pgserver.Start(bg)
	must(t, err)
	t.Cleanup(func() { srv.Stop() })
	must(t, os.WriteFile(filepath.Join(srv.Dir(), "data", "standby.signal"), nil, 0o644))
	must(t, srv.Restart(bg, pgserver.Fast))

	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			db := openURL(t, driver, srv.URL())
			if !one[bool](t, db, "SELECT pg_is_in_recovery()") {
				t.Fatal("the server is no standby")
			}
			conn := connOf(t, db)
			session := pglock.NewSession(conn)
			audited := pglock.NewSession(conn, pglock.WithAudit())
			for name, try := range map[string]func(...swanlock.Option) (any, error){
				"functions": func(o ...swanlock.Option) (any, error) { return pglock.TryAcquire(bg, conn, "t", o...) },
				"Session":   func(o ...swanlock.Option) (any, error) { return session.TryAcquire(bg, "t", o...) },
				"audited":   func(o ...swanlock.Option) (any, error) { return audited.TryAcquire(bg, "t", o...) },
				"Acquire":   func(o ...swanlock.Option) (any, error) { return session.Acquire(bg, "t", o...) },
			} {
				for _, opts := range [][]swanlock.Option{nil, {swanlock.WithTTL(time.Minute)}, {swanlock.WithShared()}, {swanlock.WithFence()}} {
					if _, err := try(opts...); !(errors.Is(err, pglock.ErrStandby) || name == "audited" && errors.Is(err, pglock.ErrAudit)) ||
						errors.Is(err, swanlock.ErrNotAcquired) {
						t.Errorf("%s with %d options: got %v, want ErrStandby", name, len(opts), err)
					}
				}
			}
			p := newPool(t, db)
			var wg sync.WaitGroup
			for range 8 { // together, too
				wg.Go(func() {
					if _, err := p.TryAcquire(bg, newTarget(t)); !errors.Is(err, pglock.ErrStandby) {
						t.Errorf("a pool: got %v, want ErrStandby", err)
					}
				})
			}
			wg.Wait()
			if n := one[int](t, db, "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"); n != 0 {
				t.Errorf("got %d locks on the standby, want none", n)
			}
			if got := one[string](t, conn, "SHOW idle_session_timeout"); got != "0" {
				t.Errorf("got idle_session_timeout %s, want 0 as before", got)
			}
		})
	}
}
