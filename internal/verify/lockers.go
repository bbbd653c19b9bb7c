package verify

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A lockerKind is a way to take locks. Each one in the table below is verified.
type lockerKind struct {
	name    string
	driver  string
	audited bool
	single  bool // one session for all that it holds
	shared  bool // one locker for all clients of a process
	open    func(ctx context.Context, db *sql.DB, audited bool) (opened, error)
}

// opened is a locker and how it is closed.
type opened struct {
	swanlock.Locker
	close func(context.Context) error
	conn  *sql.Conn // the one that it locks on, if its owner has it
}

var lockerKinds = []lockerKind{
	{"Pool, lib/pq", "postgres", false, false, true, openPool},
	{"Pool, pgx", "pgx", false, false, true, openPool},
	{"Pool with audit, lib/pq", "postgres", true, false, true, openPool},
	{"Pool with audit, pgx", "pgx", true, false, true, openPool},
	{"Session, lib/pq", "postgres", false, true, false, openSession},
	{"Session, pgx", "pgx", false, true, false, openSession},
	{"Session with audit, lib/pq", "postgres", true, true, false, openSession},
	{"Session with audit, pgx", "pgx", true, true, false, openSession},
	{"functions, lib/pq", "postgres", false, true, false, openFunctions},
	{"functions, pgx", "pgx", false, true, false, openFunctions},
}

// poolKinds are those that a crowd uses.
var poolKinds = lockerKinds[:4]

// builtKinds are those that the clients build on.
var builtKinds = lockerKinds[:2]

func openSession(ctx context.Context, db *sql.DB, audited bool) (opened, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return opened{}, err
	}
	opts := []pglock.SessionOption{pglock.WithLogger(nil)}
	if audited {
		opts = append(opts, pglock.WithAudit())
	}
	s := pglock.NewSession(conn, opts...)
	return opened{s, func(ctx context.Context) error {
		return errors.Join(s.Close(ctx), conn.Close())
	}, conn}, nil
}

func openPool(_ context.Context, db *sql.DB, audited bool) (opened, error) {
	opts := []pglock.PoolOption{pglock.WithLogger(nil)}
	if audited {
		opts = append(opts, pglock.WithAudit())
	}
	p, err := pglock.NewPool(db, opts...)
	if err != nil {
		return opened{}, err
	}
	return opened{p, p.Close, nil}, nil
}

// openSmallPool opens a Pool on one connection.
func openSmallPool(ctx context.Context, db *sql.DB, audited bool) (opened, error) {
	db.SetMaxOpenConns(1)
	return openPool(ctx, db, audited)
}

func openFunctions(ctx context.Context, db *sql.DB, _ bool) (opened, error) {
	conn, err := db.Conn(ctx)
	if err != nil {
		return opened{}, err
	}
	return opened{functions{conn}, func(context.Context) error { return conn.Close() }, conn}, nil
}

// functions is the package's functions as a locker.
type functions struct{ conn *sql.Conn }

func (f functions) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return lockOf(pglock.TryAcquire(ctx, f.conn, target, opts...))
}

func (f functions) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return lockOf(pglock.Acquire(ctx, f.conn, target, opts...))
}

func lockOf(l *pglock.PostgresLock, err error) (swanlock.DistributedLock, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// postgres is the site of a worker whose locks are PostgreSQL's.
type postgres struct {
	cfg      workerConfig
	register *sql.DB
}

// open opens a locker with a driver of its own. label is the application_name of
// its sessions.
func (p *postgres) open(ctx context.Context, kind lockerKind, label string) (*opened, error) {
	db, err := openDB(kind.driver, p.cfg.DSN, p.cfg.Via, p.cfg.Run+label)
	if err != nil {
		return nil, err
	}
	l, err := kind.open(ctx, db, kind.audited)
	if err != nil {
		db.Close()
		return nil, err
	}
	closeLocker := l.close
	l.close = func(ctx context.Context) error { return errors.Join(closeLocker(ctx), db.Close()) }
	return &l, nil
}

func (p *postgres) close() { p.register.Close() }

// openDB opens the database with a driver. With via, an address, every
// connection goes there, wherever the DSN points: TLS still verifies the DSN's
// host.
func openDB(driver, dsn, via, application string) (*sql.DB, error) {
	dsn += " application_name='" + application + "'"
	dial := (&net.Dialer{Timeout: 5 * time.Second}).DialContext
	if via != "" {
		direct := dial
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) { return direct(ctx, "tcp", via) }
	}
	switch driver {
	case "postgres":
		c, err := pq.NewConnector(dsn)
		if err != nil {
			return nil, err
		}
		c.Dialer(dialer(dial))
		return sql.OpenDB(c), nil
	case "pgx":
		cfg, err := pgx.ParseConfig(dsn)
		if err != nil {
			return nil, errors.New("pgx cannot read the connection string") // which its own error quotes
		}
		if via != "" {
			cfg.LookupFunc = func(_ context.Context, host string) ([]string, error) { return []string{host}, nil }
		}
		cfg.DialFunc = dial
		return stdlib.OpenDB(*cfg), nil
	}
	return nil, fmt.Errorf("no driver %q", driver)
}

// dialer is what lib/pq wants.
type dialer func(ctx context.Context, network, address string) (net.Conn, error)

func (d dialer) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	return d(ctx, network, address)
}

func (d dialer) Dial(network, address string) (net.Conn, error) {
	return d(context.Background(), network, address)
}

func (d dialer) DialTimeout(network, address string, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	return d(ctx, network, address)
}
