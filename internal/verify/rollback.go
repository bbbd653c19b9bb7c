package verify

import (
	"context"
	"database/sql"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A deal is what a client does in a transaction of its own, on the connection that
// its locks are on: it takes its lock or releases it there, or it takes and releases
// another lock with a shorter TTL. Most transactions are rolled back, which takes
// back what was set in them, and not the locks.
type deal struct {
	acquires, releases bool // of the lock itself
	beside             bool // another lock
	rolledBack         bool
}

// deal makes up what to do in transactions around the next lock. The rows of the
// audit belong to the transaction, so only what is not audited is done there.
func (c *client) deal() (d deal) {
	if !c.cfg.Rollback || c.locker.conn == nil || c.kind.audited || !c.chance(12) {
		return d
	}
	d.rolledBack = c.chance(80)
	switch n := c.rnd.IntN(10); {
	case n < 2:
		d.acquires = true
	case n < 5:
		d.releases = true
	default:
		d.beside = true
	}
	return d
}

// begin begins a transaction, if it is to, on a connection that is alive.
func (c *client) begin(in bool) (*sql.Conn, error) {
	if !in {
		return nil, nil
	}
	// No context: a driver that cancels a statement may end the session with it.
	_, err := c.locker.conn.ExecContext(context.Background(), "BEGIN")
	return c.locker.conn, err
}

// end ends it, and tells of whose lock it was.
func (c *client) end(conn *sql.Conn, id string, d deal) error {
	if conn == nil {
		return nil
	}
	how := "COMMIT"
	if d.rolledBack {
		how = "ROLLBACK"
		if err := c.journal.put(event{What: evRollback, Hold: id, At: now()}); err != nil {
			return err
		}
	}
	if _, err := conn.ExecContext(context.Background(), how); err != nil {
		c.spoiled = true
	}
	return nil
}

// besides takes another lock on the session that has main, with a shorter TTL, and
// releases it in a transaction. Then the holder of main stays for longer than that
// without a word.
func (c *client) besides(ctx context.Context, id string, main *Hold, d deal) error {
	h, opts := c.ask()
	h.Target = (main.Target + 1 + c.rnd.IntN(len(c.cfg.Targets)-1)) % len(c.cfg.Targets)
	h.TTL = time.Duration(200+c.rnd.IntN(200)) * time.Millisecond
	h.Wait, h.Auto, h.Fenced, h.Shared, h.InTransaction = false, false, false, c.cfg.Targets[h.Target].Shared && c.chance(60), c.chance(50)
	opts = []swanlock.Option{swanlock.WithTTL(h.TTL)}
	if h.Shared {
		opts = append(opts, swanlock.WithShared())
	}
	conn, err := c.begin(h.InTransaction)
	if err != nil {
		c.spoiled = true
		return nil
	}
	actx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	other, lock, err := c.acquire(actx, h, opts)
	if lock == nil || err != nil {
		if err == nil {
			err = c.end(conn, id, d)
		}
		return err
	}
	if conn == nil {
		if conn, err = c.begin(true); err != nil {
			c.spoiled, conn = true, nil
		}
	}
	if err := c.release(context.Background(), other, lock); err != nil {
		return err
	}
	if err := c.end(conn, id, d); err != nil {
		return err
	}
	c.stay = 2*h.TTL + time.Duration(c.rnd.IntN(700))*time.Millisecond
	return nil
}
