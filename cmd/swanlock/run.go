package main

import (
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
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

	wctx, stop := endOnSignal(ctx, signals, anySignal)
	var h *held
	if o.file {
		h, err = acquireFile(wctx, o)
	} else {
		h, err = acquireThrough(wctx, s, o)
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
	warn := func(err error) { complain(s.err, fmt.Errorf("run: %w", err)) }
	g := &guard{lock: h.lock, ttl: o.ttl, idle: h.idle, grace: o.grace, signals: signals, warn: warn}
	socket := h.socket()
	c, err := startCommand(o, path, childEnv(os.Environ(), h.lock), socket, s, warn, g.renew)
	if socket != nil {
		socket.Close()
	}
	if err != nil {
		return errors.Join(err, h.release(now))
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
	if err := h.release(rctx); err != nil && keeping {
		warn(fmt.Errorf("the lock on %s was kept for less than --at-least %v: %w", quote(o.target), o.atLeast, err))
	} else if lost == nil {
		lost = err
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

// acquire connects and takes the lock. After an error nothing is held.
func acquire(ctx context.Context, s streams, o runOptions) (_ *held, err error) {
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
	opts := []pglock.SessionOption{pglock.WithLogger(logger(s.err))}
	if o.audit {
		opts = append(opts, pglock.WithAudit())
	}
	if o.poll {
		opts = append(opts, pglock.WithPolling())
	}
	h.sess = pglock.NewSession(h.conn, opts...)
	if h.lock, err = o.take(ctx, h.sess); err != nil {
		return nil, o.refused(whole, err)
	}
	return h, nil
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
