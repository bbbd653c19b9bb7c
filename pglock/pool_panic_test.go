package pglock_test

import (
	"database/sql"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPoolDriverPanicsInAHeartbeat: the session is over, its holders are told, and the
// Pool forgets it.
func TestPoolDriverPanicsInAHeartbeat(t *testing.T) {
	t.Parallel()
	conn, err := pq.NewConnector(server(t).URL())
	must(t, err)
	c := &panicky{Connector: conn, armed: new(atomic.Bool), slow: new(atomic.Bool)}
	db := sql.OpenDB(c)
	t.Cleanup(func() { db.Close() })
	p := newPool(t, db, pglock.WithHeartbeat(50*time.Millisecond))
	held := acquired(t, p, newTarget(t))
	c.armed.Store(true)
	wantIs(t, ended(t, held), swanlock.ErrLost)
	eventually(t, "the session is forgotten", func() bool { return p.Stats().Sessions == 0 })
	must(t, acquired(t, p, newTarget(t)).Release(bg))
}
