package pglock

import (
	"log/slog"
	"sync"
	"time"
)

// A SessionOption sets how a Session works.
type SessionOption interface{ forSession(*config) }

// A PoolOption sets how a Pool works.
type PoolOption interface{ forPool(*config) }

// A CommonOption is for a Session and for a Pool alike.
type CommonOption interface {
	SessionOption
	PoolOption
}

type commonOption func(*config)

func (o commonOption) forSession(c *config) { o(c) }
func (o commonOption) forPool(c *config)    { o(c) }

type poolOption func(*config)

func (o poolOption) forPool(c *config) { o(c) }

// config is what the options set.
type config struct {
	audit       bool
	polling     bool
	log         *slog.Logger
	leaseless   *sync.Once // for the warning that the server keeps no lease
	maxWaiters  int
	maxSessions int           // 0: half of what the *sql.DB may open
	heartbeat   time.Duration // 0: none, for a Session
	counts      counts
}

func defaults() *config {
	return &config{log: slog.Default(), leaseless: new(sync.Once), maxWaiters: 8}
}

// complete sets what the options have left nil.
func (c *config) complete() *config {
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
//
// The table is the lock_audit of the first schema of the search_path that has one,
// as it was at the connection's first lock; a temporary table of that name does not
// count. From then on the table is named by its schema, whatever the search_path.
func WithAudit() CommonOption { return commonOption(func(c *config) { c.audit = true }) }

// WithLogger sets where warnings go. The default is slog.Default(); nil
// discards them.
func WithLogger(l *slog.Logger) CommonOption {
	return commonOption(func(c *config) { c.log = l })
}

// WithPolling makes Acquire look from time to time, at growing intervals of up
// to a quarter of a second, instead of waiting in the server. It is for very
// long waits, such as a leader's standbys: it keeps the place in line, needs no
// session to wait on, and leaves nothing in the server's log, but is up to a
// quarter of a second late.
func WithPolling() CommonOption { return commonOption(func(c *config) { c.polling = true }) }

// WithMaxWaiters bounds the connections on which a Pool waits in the server, one
// for each target that its callers wait for; the default is 8. For further
// targets, and if n is 0, it looks from time to time, as WithPolling does.
func WithMaxWaiters(n int) PoolOption { return poolOption(func(c *config) { c.maxWaiters = n }) }

// WithMaxSessions bounds the connections that a Pool takes of its *sql.DB. The
// default is half of what SetMaxOpenConns allows, one at least, and 32 where it
// allows any number. A Pool that may take no more puts locks of different TTLs on
// one session, whose lease is then the shortest of them: a process that is cut off
// for that long loses all of them. A warning says so once.
//
// Where locks keep all the connections that the *sql.DB may open, as with
// SetMaxOpenConns(1), a query of the program's waits until one is released. Work
// under a lock that makes such a query waits for itself. A warning says so once,
// when somebody waits.
func WithMaxSessions(n int) PoolOption { return poolOption(func(c *config) { c.maxSessions = n }) }

// WithHeartbeat sets how often the locks of a session are proven in the
// background, and so how soon their Done is closed when it is dead. It costs
// one statement for each session that has locks. A Pool's default is a second,
// or a third of a session's lease, if that is shorter. A Session has no
// heartbeat without this option. Its statement waits for the caller's own on
// the connection, and is left out where Rows are open, and while the caller has
// a transaction open. A Session's heartbeat restarts no lock's TTL. The interval
// is a millisecond or more.
func WithHeartbeat(every time.Duration) CommonOption {
	return commonOption(func(c *config) { c.heartbeat = every })
}
