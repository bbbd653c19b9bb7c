package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
	"github.com/swanlake-io/swanlock/internal/rawconn"
	"github.com/swanlake-io/swanlock/pglock"
)

func cmdRun(ctx context.Context, s streams, args []string) error {
	o, err := parseRun(args)
	if err != nil {
		return err
	}
	path, err := lookPath("run", o.argv[0])
	if err != nil {
		return err
	}
	reapOrphans()
	signals, release := catch(passedOn...)
	defer release()
	// A broken stderr must not end swanlock, and with it the lock, before the
	// command. If SIGPIPE is caught, the write fails with an error. Nothing
	// reads the channel.
	catch(syscall.SIGPIPE)
	own := newBacklog(s.err)
	defer own.flush()

	wctx, stop := endOnSignal(ctx, signals, anySignal)
	var h *held
	if o.file {
		h, err = acquireFile(wctx, o)
	} else {
		h, err = acquireThrough(wctx, own, o)
	}
	stop()
	if ended := interrupted(wctx, "run"); ended != nil {
		if err == nil {
			_ = h.release(wctx)
		}
		return ended
	}
	if err != nil {
		return err
	}

	now, cancel := context.WithCancel(ctx)
	cancel() // --at-least is for a command that ran
	if err := h.due(ctx, o); err != nil {
		_ = h.release(now)
		return err
	}
	warn := func(err error) { complain(own, fmt.Errorf("run: %w", err)) }
	g := &guard{lock: h.lock, ttl: o.ttl, idle: h.idle, grace: o.grace, signals: signals, warn: warn}
	ready := func() error {
		if lost := g.renew(); lost != nil {
			return failf(exitUnavailable, "run: the lock on %s was lost before the command was started: %w", quote(o.target), lost)
		}
		return nil
	}
	socket := h.socket()
	c, err := startCommand(o, path, childEnv(os.Environ(), h.lock), socket, s, warn, ready)
	if socket != nil {
		socket.Close()
	}
	if err != nil {
		if released := h.release(now); !errors.Is(err, swanlock.ErrLost) {
			err = errors.Join(err, released)
		}
		return err
	}
	g.proc = c
	lost := g.watch(ctx)
	code, how := c.result()
	if lost == nil && code == 0 {
		if err := h.succeeded(ctx, o); err != nil {
			warn(err)
		}
	}
	keeping := lost == nil && time.Until(h.lock.Info().AcquiredAt.Add(o.atLeast)) > 0 && h.lock.Refresh(ctx) == nil
	rctx, stop := endOnSignal(ctx, signals, ends)
	defer stop()
	if g.told {
		stop()
	}
	switch err := h.release(rctx); {
	case err == nil, lost != nil:
	case keeping:
		warn(fmt.Errorf("the lock on %s was kept for less than --at-least %v: %w", quote(o.target), o.atLeast, err))
	case errors.Is(err, swanlock.ErrLost):
		lost = err
	default: // It was held, but its row in the audit could not be closed, say.
		warn(err)
	}
	if lost != nil {
		return failf(exitLost, "run: the lock on %s was lost while the command ran, which %s: %w", quote(o.target), how, lost)
	}
	return &failure{code: code}
}

// held is a lock, on a connection of its own or in a file.
type held struct {
	db   *sql.DB
	conn *sql.Conn
	sess *pglock.Session
	lock swanlock.DistributedLock
	idle time.Duration // how long the server lets the connection be idle; 0: for ever
}

// acquire connects and takes the lock. After an error nothing is held. What pglock
// logs is written to log.
func acquire(ctx context.Context, log io.Writer, o runOptions) (_ *held, err error) {
	h := &held{}
	defer func() {
		if err != nil {
			h.close(ctx)
		}
	}()
	began, patience := time.Now(), connectTimeout
	if o.timeout > 0 {
		patience = o.timeout
	}
	if h.db, err = openWithin(ctx, patience); err != nil {
		return nil, err
	}
	whole := ctx
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, began.Add(o.timeout))
		defer cancel()
	}
	if h.conn, err = h.db.Conn(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = noAnswer(patience)
		}
		return nil, failf(exitUnavailable, "run: cannot connect to PostgreSQL: %w", err)
	}
	h.idle = idleTimeout(ctx, h.conn)
	opts := []pglock.SessionOption{pglock.WithLogger(logger(log))}
	if o.audit {
		opts = append(opts, pglock.WithAudit())
	}
	if o.poll {
		opts = append(opts, pglock.WithPolling())
	}
	h.sess = pglock.NewSession(h.conn, opts...)
	if h.lock, err = o.take(ctx, h.sess); err != nil {
		if o.timeout > 0 && errors.Is(err, swanlock.ErrNotAcquired) && whole.Err() == nil && !answers(whole, h.db) {
			return nil, failf(exitUnavailable, "run: cannot lock %s: the server has fallen silent: %w", quote(o.target), err)
		}
		return nil, o.refused(whole, err)
	}
	return h, nil
}

// answers reports whether the server tells of its locks within a second. A wait that
// has ended does not say whether anybody else has the lock.
func answers(ctx context.Context, db *sql.DB) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var one int
	return db.QueryRowContext(ctx, "SELECT 1 FROM pg_catalog.pg_locks LIMIT 1").Scan(&one) == nil // This statement has a lock itself.
}

// take takes the lock from l, now or after a wait. Its release keeps it for as long
// as --at-least says.
func (o runOptions) take(ctx context.Context, l swanlock.Locker) (swanlock.DistributedLock, error) {
	l = swanlock.WithMinHold(l, o.atLeast)
	if o.wait || o.timeout > 0 {
		return l.Acquire(ctx, o.target, o.lockOptions()...)
	}
	return l.TryAcquire(ctx, o.target, o.lockOptions()...)
}

// refused says why there is no lock. ctx is that of the whole command.
func (o runOptions) refused(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil: // first: what it cut short is ErrNotAcquired too
		return failf(exitFailed, "run: gave up on %s: %w", quote(o.target), context.Cause(ctx))
	case errors.Is(err, swanlock.ErrNotAcquired) && (o.quiet || o.heldCode == 0):
		return &failure{code: o.heldCode}
	case errors.Is(err, swanlock.ErrNotAcquired) && o.timeout > 0:
		return failf(o.heldCode, "run: %s was held elsewhere for all of %v", quote(o.target), o.timeout)
	case errors.Is(err, swanlock.ErrNotAcquired):
		return failf(o.heldCode, "run: %s is held elsewhere (--wait or --timeout would wait)", quote(o.target))
	case errors.Is(err, pglock.ErrAudit):
		return failf(exitConfig, "run: %w", err)
	}
	return failf(exitUnavailable, "run: cannot lock %s: %w", quote(o.target), err)
}

// socket returns the lock's connection or file once more, or nil: as long as
// another process has it open, our end is not taken for the lock's.
func (h *held) socket() (socket *os.File) {
	if file, ok := swanlock.As[*filelock.Lock](h.lock); ok {
		socket, _ = file.File()
		return socket
	}
	_ = rawconn.Raw(h.conn, func(driverConn any) error {
		conn := driverConn.(*stdlib.Conn).Conn().PgConn().Conn()
		if t, ok := conn.(*tls.Conn); ok {
			conn = t.NetConn()
		}
		if f, ok := conn.(interface{ File() (*os.File, error) }); ok {
			socket, _ = f.File()
		}
		return nil
	})
	return socket
}

// release frees the lock and disconnects. An error says that the lock was lost
// before.
func (h *held) release(ctx context.Context) error {
	err := h.lock.Release(ctx)
	h.close(ctx)
	return err
}

func (h *held) close(ctx context.Context) {
	if h.sess != nil {
		h.sess.Close(context.WithoutCancel(ctx))
	}
	if h.conn != nil {
		h.conn.Close()
	}
	if h.db != nil {
		h.db.Close()
	}
}

// childEnv is env with what the command may want to know of its lock. Those of
// an outer swanlock run do not get through.
func childEnv(env []string, lock swanlock.DistributedLock) []string {
	out := make([]string, 0, len(env)+3)
	for _, e := range env {
		switch name, _, _ := strings.Cut(e, "="); name {
		case "SWANLOCK_TARGET", "SWANLOCK_KEY", "SWANLOCK_FENCE":
		default:
			out = append(out, e)
		}
	}
	info := lock.Info()
	out = append(out, "SWANLOCK_TARGET="+info.Target, fmt.Sprintf("SWANLOCK_KEY=%d", pglock.KeyOf(info.Target)))
	if info.Fence != 0 {
		out = append(out, fmt.Sprintf("SWANLOCK_FENCE=%d", info.Fence))
	}
	return out
}
