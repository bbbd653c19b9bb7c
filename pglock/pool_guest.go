package pglock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

// A guest takes connections of the caller's *sql.DB for a pool, and no more than
// the application, which needs them for itself, can spare.
type guest struct {
	db      *sql.DB
	most    int                      // how many sessions the pool may have: see WithMaxSessions; 0: half of the connections
	opening chan struct{}            // held while a session is opened, if it is not known how many there may be
	came    atomic.Pointer[shortage] // the last one; nil: there was none
	waits   atomic.Int64             // how many callers of the *sql.DB had waited for a connection, when that was last looked at
}

// A shortage began when a connection came late, or not at all.
type shortage struct {
	until time.Time
	limit int // how many sessions there may be until then
}

// scarceFor is how long a pool takes no more connections after one came late.
const scarceFor = time.Minute

func newGuest(db *sql.DB, most int) *guest {
	g := &guest{db: db, most: most, opening: make(chan struct{}, 1)}
	g.waits.Store(db.Stats().WaitCount)
	return g
}

// limit returns how many sessions the pool may have.
func (g *guest) limit() int {
	limit := maxSessions
	if g.most > 0 {
		limit = min(limit, g.most)
	} else if open := g.db.Stats().MaxOpenConnections; open > 0 {
		limit = min(limit, max(open/2, 1))
	}
	if short := g.shortage(); short != nil {
		limit = min(limit, short.limit)
	}
	return limit
}

// shortage returns the shortage that there is now, or nil.
func (g *guest) shortage() *shortage {
	if short := g.came.Load(); short != nil && time.Now().Before(short.until) {
		return short
	}
	return nil
}

// late notes that a connection of the *sql.DB came late, or not at all.
func (g *guest) late() {
	inUse := g.db.Stats().InUse // as many as there are, since one more is not to be had
	g.came.Store(&shortage{time.Now().Add(scarceFor), max(inUse/2, 1)})
}

// allInUse reports whether all connections of the *sql.DB are in use.
func (g *guest) allInUse() bool {
	st := g.db.Stats()
	if st.MaxOpenConnections > 0 {
		return st.InUse >= st.MaxOpenConnections
	}
	return g.shortage() != nil
}

// starved reports whether the sessions of the pool are all the connections that
// the *sql.DB may open, and a caller has begun to wait for one since the last look.
func (g *guest) starved(sessions int) bool {
	st := g.db.Stats()
	return g.waits.Swap(st.WaitCount) < st.WaitCount && st.MaxOpenConnections > 0 && sessions >= st.MaxOpenConnections
}

// spare reports whether the *sql.DB can give a connection, and still has keep
// more.
func (g *guest) spare(keep int) bool {
	st := g.db.Stats()
	return st.MaxOpenConnections == 0 || st.InUse+keep < st.MaxOpenConnections
}

// scarce adds to err that all connections of the *sql.DB are in use, if they
// are.
func (g *guest) scarce(err error) error {
	if g.spare(0) {
		return err
	}
	return fmt.Errorf("all %d connections of the *sql.DB are in use: raise SetMaxOpenConns: %w", g.db.Stats().MaxOpenConnections, err)
}

// awaitOpening waits until no other session is being opened, if nobody knows how many
// connections there are: one that is open tells the next that it need not wait long.
// It does not wait for one that takes long itself. done is to be called afterwards.
func (g *guest) awaitOpening(ctx context.Context) (done func()) {
	if g.db.Stats().MaxOpenConnections == 0 {
		timer := time.NewTimer(connecting / 10)
		defer timer.Stop()
		select {
		case g.opening <- struct{}{}:
			return func() { <-g.opening }
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	return func() {}
}

// connection takes a connection for a session. If the pool has others, it does not
// wait long, since those can be shared.
func (g *guest) connection(ctx context.Context, others bool) (conn *sql.Conn, err error) {
	soon := ctx
	if others {
		var cancel context.CancelFunc
		soon, cancel = context.WithTimeout(ctx, connecting/10)
		defer cancel()
	}
	conn, err = g.conn(soon)
	if err != nil && others && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
		g.late()
		return nil, fmt.Errorf("%w: %w", errSessionGone, err)
	}
	g.waits.Store(g.db.Stats().WaitCount) // The pool itself may have waited.
	return conn, err
}

// conn takes a connection of the *sql.DB. lib/pq does not look at ctx while it
// connects, so conn may return before it; a connection that comes later goes
// back.
func (g *guest) conn(ctx context.Context) (*sql.Conn, error) {
	return within(ctx, grace, func() (*sql.Conn, error) { return g.db.Conn(ctx) },
		func(conn *sql.Conn) { conn.Close() }, errNotAccepted)
}

var errNotAccepted = errors.New("the server did not accept it in time")
