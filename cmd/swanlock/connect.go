package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock/pglock"
)

// dsnVar names the server before all other variables do.
const dsnVar = "SWANLAKE_LOCK_POSTGRES_CONNECTION"

// connectTimeout bounds the first contact with the server.
const connectTimeout = 10 * time.Second

// open reads the environment and returns a pool of connections to the server
// that it names, which has answered. No error shows a password.
func open(ctx context.Context) (*sql.DB, error) { return openWithin(ctx, connectTimeout) }

// onServer runs f on a pool of connections to the server, until a signal comes.
func onServer(ctx context.Context, name string, f func(ctx context.Context, on *sql.DB) error) error {
	ctx, stop := untilSignal(ctx)
	defer stop()
	on, err := open(ctx)
	if err == nil {
		defer on.Close()
		if err = f(ctx, on); err != nil {
			if _, ok := err.(*failure); !ok {
				err = failf(exitUnavailable, "%s: %w", name, err)
			}
		}
	}
	if ended := interrupted(ctx, name); err != nil && ended != nil {
		return ended
	}
	return err
}

// openWithin is open with a bound of the caller's.
func openWithin(ctx context.Context, timeout time.Duration) (*sql.DB, error) {
	dsn, err := pglock.DSNFromEnv()
	if errors.Is(err, pglock.ErrNoDSN) {
		return nil, failf(exitConfig, "no PostgreSQL server is configured: set "+dsnVar+" (or PGHOST and the like), or start a local one with: swanlock dev")
	}
	if err != nil {
		return nil, &failure{exitConfig, err}
	}
	return openDSNWithin(ctx, dsn, timeout)
}

func openDSN(ctx context.Context, dsn string) (*sql.DB, error) {
	return openDSNWithin(ctx, dsn, connectTimeout)
}

func openDSNWithin(ctx context.Context, dsn string, timeout time.Duration) (*sql.DB, error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		// The error itself quotes the string and hides its password only as
		// well as it can.
		if _, ok := errors.AsType[*pgconn.ParseConfigError](err); ok {
			err = errors.New("the driver cannot read it")
		}
		return nil, failf(exitConfig, "the connection string in the environment is wrong: %w", err)
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "swanlock"
	}
	db := stdlib.OpenDB(*cfg)
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, noAnswer(timeout))
	defer cancel()
	if err := db.PingContext(ctx); err != nil {
		db.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, failf(exitUnavailable, "cannot connect to PostgreSQL: %w", err)
	}
	return db, nil
}

// A noAnswer is how long the server was silent: an error of the network's.
type noAnswer time.Duration

func (n noAnswer) Error() string { return fmt.Sprintf("no answer within %v", time.Duration(n)) }
func (noAnswer) Timeout() bool   { return true }
func (noAnswer) Temporary() bool { return true }

// logger writes what pglock warns of as swanlock's own errors are written.
func logger(w io.Writer) *slog.Logger {
	return slog.New(slog.NewTextHandler(warnings{w}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
			return slog.Attr{}
		}
		return a
	}}))
}

type warnings struct{ w io.Writer }

func (w warnings) Write(p []byte) (int, error) {
	complain(w.w, errors.New(string(p)))
	return len(p), nil
}
