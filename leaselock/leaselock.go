package leaselock

import (
	"cmp"
	"context"
	cryptorand "crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/internal/outage"
	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// keptAlive is the lease of a lock without a TTL.
const keptAlive = 10 * time.Second

// An Option sets how a Locker works.
type Option func(*Locker)

// WithSchema names the schema that has the table lock_leases. The default is
// public.
func WithSchema(name string) Option { return func(l *Locker) { l.schema = name } }

// WithClockDrift says by how much the clocks of the servers may differ that serve
// the table: the nodes of a distributed engine (CockroachDB's --max-offset, 500 ms
// by default), or a primary and the standby that takes over. A lock whose TTL ran
// out is free for others that much later. The default is 0.
func WithClockDrift(d time.Duration) Option { return func(l *Locker) { l.drift = d } }

// A Locker takes locks in a table. It is a swanlock.Locker; its methods may be
// called by several goroutines at once. Each of its locks is a session of its
// own: no target is ever swanlock.ErrAlreadyHeld. It has nothing to close.
type Locker struct {
	queries *db.Queries
	schema  string
	drift   time.Duration
}

// New returns a Locker that uses pool, which stays the caller's. It sends nothing.
// Its table is made by the migration of the package leaselock/migrations.
func New(pool *sql.DB, opts ...Option) (*Locker, error) {
	if pool == nil {
		return nil, errors.New("leaselock: the *sql.DB is nil")
	}
	l := &Locker{schema: "public"}
	for _, opt := range opts {
		if opt != nil {
			opt(l)
		}
	}
	switch {
	case l.schema == "" || strings.IndexByte(l.schema, 0) >= 0:
		return nil, fmt.Errorf("leaselock: %q is no name of a schema", l.schema)
	case l.drift < 0:
		return nil, fmt.Errorf("leaselock: the clock drift %v is negative", l.drift)
	}
	table := `"` + strings.ReplaceAll(l.schema, `"`, `""`) + `".lock_leases`
	l.queries = db.New(db.Rewrite(db.On(pool), func(query string) string {
		return strings.ReplaceAll(db.OneLine(query), "public.lock_leases", table)
	}))
	return l, nil
}

// TryAcquire takes the lock if it is free now, in one round trip. WithShared is
// refused with an error that matches errors.ErrUnsupported.
func (l *Locker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	r, err := l.request(target, opts)
	if err != nil {
		return nil, err
	}
	return lease.AsLock(l.try(ctx, r))
}

// Acquire asks for the lock until it is granted, or until ctx ends, at random
// intervals that grow from 10 to 100 ms. Waiters are served in no order. It waits
// through an outage of the server, and through what a lock_timeout or a
// statement_timeout ends, and tells of it if ctx ends first.
func (l *Locker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	r, err := l.request(target, opts)
	if err != nil {
		return nil, err
	}
	var spell bool // there was an outage
	goesOn := func(err error) bool {
		// During a failover, the address may still lead to a standby.
		spell = spell || outage.Is(err)
		return spell && (outage.Is(err) || sqlstate.Of(err) == readOnly) || passing(sqlstate.Of(err))
	}
	return lease.AsLock(lease.Poll(ctx, r.Package, target, goesOn, func() (*lease.Lock, error) { return l.try(ctx, r) }))
}

func (l *Locker) request(target string, opts []swanlock.Option) (lease.Request, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err != nil {
		return lease.Request{}, err
	}
	if o.Shared {
		return lease.Request{}, fmt.Errorf("leaselock: a row of the table has one holder: leave out WithShared, or use pglock: %w", errors.ErrUnsupported)
	}
	return lease.Request{Package: "leaselock", Target: target, Options: o, Lease: cmp.Or(o.TTL, keptAlive)}, nil
}

// The SQLSTATEs that mean something here.
const (
	readOnly             = "25006"
	serializationFailure = "40001"
	deadlockDetected     = "40P01"
	undefinedTable       = "42P01"
	invalidSchema        = "3F000"
	lockNotAvailable     = "55P03" // after lock_timeout
	queryCanceled        = "57014" // after statement_timeout, or by an administrator
	pgBouncer            = "08P01" // for all that it says, also of a server that it has lost while the statement ran
)

// try sends one acquire, under a token that nobody else has.
func (l *Locker) try(ctx context.Context, r lease.Request) (*lease.Lock, error) {
	b := &row{queries: l.queries, key: int64(swanlock.KeyOf(r.Target)), target: r.Target, owner: r.Options.Owner,
		token: cryptorand.Text(), lease: r.Lease.Microseconds() + l.drift.Microseconds() + 1}
	r.Backend = b
	return lease.Try(ctx, r, func(ctx context.Context) (uint64, error) {
		fence, err := b.acquire(ctx)
		switch state := sqlstate.Of(err); {
		case err == nil:
			b.granted = true
		case errors.Is(err, sql.ErrNoRows):
			return 0, fmt.Errorf("%w: another holds it", swanlock.ErrNotAcquired)
		case state == undefinedTable, state == invalidSchema:
			return 0, lease.Refused(fmt.Errorf("run the migration of leaselock/migrations, or say WithSchema: %w", err))
		case refuses(err) && state != pgBouncer:
			return 0, lease.Refused(err)
		}
		return uint64(fence), err
	})
}

// refuses reports whether err is the server's, or that of a *sql.DB which is closed,
// and would be so again.
func refuses(err error) bool {
	state := sqlstate.Of(err)
	return state != "" && state != queryCanceled && !outage.Is(err) || err != nil && err.Error() == dbClosed
}

// passing reports whether a statement that failed with state may succeed when it is
// sent again, because what was in its way is over.
func passing(state string) bool {
	switch state {
	case serializationFailure, deadlockDetected, lockNotAvailable, queryCanceled:
		return true
	}
	return false
}

// dbClosed is the text of an error that database/sql does not export.
const dbClosed = "sql: database is closed"

// Prune deletes the rows of locks whose last lease ended more than unused ago, and
// returns how many. A row costs about 100 bytes; a program whose targets are
// always the same needs no Prune. A fence goes on rising after its row was deleted
// as long as the server's clock is not set back, and unused is longer than an
// acquire may stall in the server: say an hour.
func (l *Locker) Prune(ctx context.Context, unused time.Duration) (int64, error) {
	if unused < 0 {
		return 0, fmt.Errorf("leaselock: prune: %v is negative", unused)
	}
	n, err := l.queries.PruneLeases(ctx, unused.Microseconds())
	if err != nil {
		return 0, fmt.Errorf("leaselock: prune: %w", err)
	}
	return n, nil
}

// A row is one lock, held or asked for.
type row struct {
	queries       *db.Queries
	key           int64
	target, owner string
	token         string
	lease         int64 // microseconds
	granted       bool  // by an answer that came in time
}

// send runs a statement, and returns when ctx ends. The statement goes on, for
// maxStatement at most. If it was cut short, a server that stands still would run
// it all the same, later on, and nobody would free what it took; and lib/pq, which
// cannot cut it short on a silent network, would not return. late is called when
// it has ended after all; it may be nil.
func send(ctx context.Context, f func(ctx context.Context) (int64, error), late func()) (int64, error) {
	return lease.Leave(ctx, func() (int64, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), maxStatement)
		defer cancel()
		return f(ctx)
	}, func(int64, error) {
		if late != nil {
			late()
		}
	})
}

const maxStatement = time.Minute

// steadily sends a statement again that the server has taken back: under repeatable
// read because its row has changed since it began, and if transactions are
// serializable also because of other rows that are read and written at this time.
func steadily(ctx context.Context, f func(ctx context.Context) (int64, error), late func()) (n int64, err error) {
	for tries := 0; ; tries++ {
		n, err = send(ctx, f, late)
		takenBack := sqlstate.Of(err) == serializationFailure || sqlstate.Of(err) == deadlockDetected
		if !takenBack || tries == 20 || !lease.Pause(ctx, rand.N(time.Millisecond<<min(tries, 5))) {
			return n, err
		}
	}
}

func (b *row) acquire(ctx context.Context) (fence int64, err error) {
	return steadily(ctx, func(ctx context.Context) (int64, error) {
		return b.queries.AcquireLease(ctx, db.AcquireLeaseParams{Key: b.key, Target: b.target, Owner: b.owner, Token: b.token, Lease: b.lease})
	}, func() { _, _ = lease.Free(context.Background(), b) })
}

func (b *row) Refresh(ctx context.Context) error {
	n, err := steadily(ctx, func(ctx context.Context) (int64, error) {
		return b.queries.RefreshLease(ctx, db.RefreshLeaseParams{Lease: b.lease, Key: b.key, Token: b.token})
	}, nil)
	if err == nil && n == 0 {
		return fmt.Errorf("%w: the table has it no more", swanlock.ErrLost)
	}
	return err
}

func (b *row) Release(ctx context.Context) (held bool, err error) {
	if !b.granted {
		return false, b.withdraw(ctx)
	}
	n, err := steadily(ctx, func(ctx context.Context) (int64, error) {
		return b.queries.ReleaseLease(ctx, db.ReleaseLeaseParams{Key: b.key, Token: b.token})
	}, nil)
	return n > 0, lasting(err)
}

// withdraw frees what an acquire may have taken whose answer did not come, or may
// take yet: it may wait for a standby, for the row, or in a pooler.
func (b *row) withdraw(ctx context.Context) error {
	_, err := steadily(ctx, func(ctx context.Context) (int64, error) {
		return b.queries.WithdrawLease(ctx, db.WithdrawLeaseParams{Key: b.key, Target: b.target, Owner: b.owner, Token: b.token})
	}, nil)
	return lasting(err)
}

// lasting returns err as one after which lease.Free does not try again, if it is such.
func lasting(err error) error {
	if refuses(err) && !passing(sqlstate.Of(err)) {
		return lease.Refused(err)
	}
	return err
}
