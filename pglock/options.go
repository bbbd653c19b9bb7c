package pglock

import (
	"log/slog"
	"sync"
)

// A SessionOption sets how a Session works. A nil one does nothing.
type SessionOption func(*config)

// config is what the options set.
type config struct {
	audit     bool
	log       *slog.Logger
	leaseless *sync.Once // says once that the server keeps no lease
}

func newConfig(leaseless *sync.Once, opts []SessionOption) *config {
	c := &config{log: slog.Default(), leaseless: leaseless}
	for _, opt := range opts {
		if opt != nil {
			opt(c)
		}
	}
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
	return c
}

// WithAudit writes a row of lock_audit (see the package migrations) for each
// lock, in the statement that takes it, and closes the row in the one that
// frees it. If the row cannot be written, the lock is not taken (ErrAudit).
// Inside a transaction of the caller's the rows share its fate. Exclusive locks
// outside one have a fence then, asked for or not.
func WithAudit() SessionOption { return func(c *config) { c.audit = true } }

// WithLogger sets where warnings go; the default is slog.Default(), and nil is
// nowhere.
func WithLogger(l *slog.Logger) SessionOption { return func(c *config) { c.log = l } }
