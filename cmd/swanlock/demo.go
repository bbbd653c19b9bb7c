package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/swanlake-io/swanlock/pglock"
)

// demoTarget is what the processes of the demo lock.
const demoTarget = "/lake/orders/checkpoint"

// demoTimeout ends a demo that hangs.
const demoTimeout = time.Minute

// A demo shows what it claims, and counts what did not hold.
type demo struct {
	out   io.Writer
	tick  string
	cross string

	dir   string  // with the files that the workers write
	db    *sql.DB // a session of its own: what is claimed is seen from outside
	key   pglock.Key
	procs procs

	claims, failed int
	grants         int // how often the target was locked, for the audit
}

func cmdDemo(ctx context.Context, s streams, args []string) (err error) {
	if _, err := parse(newFlags("demo"), args, 0, 0); err != nil {
		return err
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	began := time.Now()
	d := &demo{out: s.out, tick: "✓", cross: "✗", key: pglock.KeyOf(demoTarget)}
	c := coloursFor(s.out)
	d.tick, d.cross = c.green+d.tick+c.off, c.red+d.cross+c.off
	if err := d.show(ctx); err != nil {
		if ended := interrupted(ctx, "demo"); ended != nil {
			return ended
		}
		return failf(exitFailed, "demo: %w", err)
	}
	return d.verdict(time.Since(began))
}

func (d *demo) verdict(took time.Duration) error {
	if d.failed > 0 {
		return failf(exitFailed, "demo: %d of %d claims did not hold (%.1f s)", d.failed, d.claims, took.Seconds())
	}
	d.say("\nAll %d claims held, in %.1f s. Next: swanlock run --help\n", d.claims, took.Seconds())
	return nil
}

func (d *demo) show(ctx context.Context) (err error) {
	if d.dir, err = os.MkdirTemp("", "swanlock-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()

	began := time.Now()
	server, err := startServer(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop()) }()
	if d.db, err = openDSN(ctx, server.URL("application_name=swanlock demo")); err != nil {
		return err
	}
	defer d.db.Close()
	var version string
	if err := d.db.QueryRowContext(ctx, "SELECT split_part(current_setting('server_version'), ' ', 1)").Scan(&version); err != nil {
		return err
	}
	d.say("A PostgreSQL %s of its own, with the audit table, was ready in %.1f s.\n", version, time.Since(began).Seconds())
	d.say("Everything below is done by processes of the operating system. What is claimed\n" +
		"is checked from outside: in the file that they write, and by another session.\n")

	ctx, cancel := context.WithTimeoutCause(ctx, demoTimeout, fmt.Errorf("not done after %v", demoTimeout))
	defer cancel()
	if err := d.procs.init(server.URL()); err != nil {
		return err
	}
	defer d.procs.end()
	defer context.AfterFunc(ctx, d.procs.end)() // so that nothing waits for them
	for _, scene := range []func(context.Context) error{d.withoutLock, d.withLock, d.killed, d.stopped, d.audit} {
		if err := scene(ctx); err != nil {
			return errors.Join(context.Cause(ctx), err)
		}
	}
	return nil
}

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.out, format, args...) }

// claim says what holds, or should.
func (d *demo) claim(holds bool, format string, args ...any) {
	d.claims++
	mark := d.tick
	if !holds {
		d.failed++
		mark = d.cross
	}
	d.say("  %s %2d  %s\n", mark, d.claims, fmt.Sprintf(format, args...))
}

// holders are the sessions that hold the target, as the server has it.
func (d *demo) holders(ctx context.Context) (pids []int, err error) {
	rows, err := d.db.QueryContext(ctx, `
		SELECT pid FROM pg_locks
		WHERE locktype = 'advisory' AND objsubid = 1 AND granted AND (classid::bigint << 32) | objid::bigint = $1`, int64(d.key))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var pid int
		if err := rows.Scan(&pid); err != nil {
			return nil, err
		}
		pids = append(pids, pid)
	}
	return pids, rows.Err()
}

// holderBut waits for a session other than not to hold the target, and returns
// it.
func (d *demo) holderBut(ctx context.Context, not int) (pid int, err error) {
	return pid, until(ctx, "another process to hold the lock", func() (bool, error) {
		pids, err := d.holders(ctx)
		if err != nil || len(pids) == 0 {
			return false, err
		}
		pid = pids[0]
		return pid != not, nil
	})
}

// waiter waits for a session of another process to stand in line for the lock.
func (d *demo) waiter(ctx context.Context, holder int) error {
	return until(ctx, "another process to wait for the lock", func() (n bool, err error) {
		err = d.db.QueryRowContext(ctx, `
			SELECT count(*) > 0 FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
			WHERE a.application_name = 'swanlock' AND l.pid <> $1 AND l.locktype = 'advisory' AND l.objsubid = 2 AND l.granted`, holder).Scan(&n)
		return n, err
	})
}

// until asks every 5 ms, for as long as a slow machine might need.
func until(ctx context.Context, what string, ask func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, 15*time.Second, errors.New("waited for 15 s in vain for "+what))
	defer cancel()
	for {
		ok, err := ask()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if ok || err != nil {
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}
