package verify

import (
	"context"
	"database/sql"
	"errors"
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
	aborted            bool // the other one is released when the transaction has failed
	rolledBack         bool
}

// deal draws what to do in transactions around the next lock. The rows of the
// audit would be rolled back too, so audited locks are left out.
func (c *client) deal() (d deal) {
	if c.locker.conn == nil || c.kind.audited || !c.chance(c.cfg.Rollback) {
		return d
	}
	d.rolledBack = c.chance(85)
	switch n := c.rnd.IntN(10); {
	case n < 2:
		d.acquires = true
	case n < 4:
		d.releases = true
	default:
		d.beside, d.aborted = true, n < 6
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

// end ends the transaction, and records that for the lock that it belongs to.
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

// besides takes another lock on the session that has the lock main, with a shorter
// TTL, and releases it in a transaction. Then the holder of main stays for longer
// than that without a word. In a transaction that has failed the release ends the
// session, of which the holder of main must know first.
func (c *client) besides(ctx context.Context, id string, h *Hold, main swanlock.DistributedLock, d deal) error {
	within := !d.aborted && c.chance(25)
	conn, err := c.begin(within)
	if err != nil {
		c.spoiled = true
		return nil
	}
	other, lock, err := c.another(ctx, h.Target, within)
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
	if d.aborted && conn != nil {
		conn.ExecContext(context.Background(), "SELECT 1 / 0")
	}
	done, said := make(chan struct{}), make(chan error, 1)
	go func() { said <- c.hold(done, id, main) }()
	err = c.release(context.Background(), other, lock)
	close(done)
	if err := errors.Join(err, <-said, c.end(conn, id, d)); err != nil {
		return err
	}
	c.stay = 3*lock.Info().TTL + time.Duration(c.rnd.IntN(700))*time.Millisecond
	return nil
}

// hold asks the lock again and again whether it is held, until done or until it is
// not.
func (c *client) hold(done <-chan struct{}, id string, lock swanlock.DistributedLock) error {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if held, err := c.held(id, lock); !held || err != nil {
			return err
		}
		select {
		case <-ticker.C:
		case <-done:
			return nil
		}
	}
}

// another takes a lock with a short TTL on another target than one, if there is one
// to be had.
func (c *client) another(ctx context.Context, one int, within bool) (id string, lock swanlock.DistributedLock, err error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	for _, target := range c.rnd.Perm(crashTarget) {
		if target == one {
			continue
		}
		h := &Hold{Proc: c.cfg.Name, Client: c.number, Label: c.label, Locker: c.kind.name, Single: true, Target: target, InTransaction: within}
		h.TTL = time.Duration(200+c.rnd.IntN(200)) * time.Millisecond
		opts := []swanlock.Option{swanlock.WithTTL(h.TTL)}
		if h.Shared = c.cfg.Targets[target].Shared && c.chance(60); h.Shared {
			opts = append(opts, swanlock.WithShared())
		}
		if id, lock, err = c.acquire(ctx, c.locker, h, opts); lock != nil || err != nil || !c.refused {
			break
		}
	}
	return id, lock, err
}
