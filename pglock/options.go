package pglock

import (
	"log/slog"
	"sync"
	"time"
)

// A SessionOption sets how a Session works. A nil one does nothing.
type SessionOption interface{ forSession(*config) }

// A PoolOption sets how a Pool works. A nil one does nothing.
type PoolOption interface{ forPool(*config) }

// A CommonOption is for a Session and for a Pool.
type CommonOption func(*config)

func (o CommonOption) forSession(c *config) { o(c) }
func (o CommonOption) forPool(c *config)    { o(c) }

type poolOption func(*config)

func (o poolOption) forPool(c *config) { o(c) }

// config is what the options set.
type config struct {
	audit       bool
	log         *slog.Logger
	leaseless   *sync.Once // says once that the server keeps no lease
	maxSessions int
	heartbeat   time.Duration
}

func defaults() *config {
	return &config{log: slog.Default(), leaseless: new(sync.Once), maxSessions: 25, heartbeat: 5 * time.Second}
}

// complete mends what an option has left out.
func (c *config) complete() {
	if c.log == nil {
		c.log = slog.New(slog.DiscardHandler)
	}
}

// WithAudit writes a row of lock_audit (see the package migrations) for each
// lock, in the statement that takes it, and closes the row in the one that
// frees it. If the row cannot be written, the lock is not taken (ErrAudit).
// Inside a transaction of the caller's the rows share its fate. Exclusive locks
// outside one have a fence then, asked for or not.
func WithAudit() CommonOption { return func(c *config) { c.audit = true } }

// WithLogger sets where warnings go; the default is slog.Default(), and nil is
// nowhere.
func WithLogger(l *slog.Logger) CommonOption { return func(c *config) { c.log = l } }

// WithMaxSessions bounds the connections that a Pool holds locks on; the default
// is 25, enough for 10,000 locks.
func WithMaxSessions(n int) PoolOption { return poolOption(func(c *config) { c.maxSessions = n }) }

// WithHeartbeat sets how often a Pool proves the locks of each session, and so
// how soon it finds out that one is dead; the default is 5 s. A session with a
// TTL is proven every third of that, if that is sooner.
func WithHeartbeat(every time.Duration) PoolOption {
	return poolOption(func(c *config) { c.heartbeat = every })
}
