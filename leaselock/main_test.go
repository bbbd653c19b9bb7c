package leaselock_test

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	"github.com/pressly/goose/v3"
	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/leaselock"
	"github.com/swanlake-io/swanlock/leaselock/migrations"
)

// crasher has the address of the server when the test binary is the process of
// TestCrash.
const crasher = "LEASELOCK_CRASH"

func TestMain(m *testing.M) {
	if address := os.Getenv(crasher); address != "" {
		panic(crash(address)) // TestCrash kills it before.
	}
	flag.Set("test.parallel", "16") // most tests wait for a TTL; the command line may say otherwise
	goleak.VerifyTestMain(pgserver.Around(m))
}

var bg = context.Background()

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func is(t testing.TB, err error, want ...error) {
	t.Helper()
	for _, w := range want {
		if !errors.Is(err, w) {
			t.Errorf("got %v, want an error that matches %v", err, w)
		}
	}
}

func eventually(t testing.TB, what string, happens func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !happens(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

// one returns the one value of a query.
func one[T any](t testing.TB, db *sql.DB, query string, args ...any) (v T) {
	t.Helper()
	must(t, db.QueryRow(query, args...).Scan(&v))
	return v
}

// drivers are both, as they work through a pooler in transaction mode too; open
// also knows pgx-simple.
var drivers = []string{"pq", "pgx"}

// A network is what a *sql.DB dials through. It counts round trips, and can fall
// silent.
type network struct {
	trips  atomic.Int64
	silent atomic.Bool
	over   atomic.Bool            // the test is
	to     atomic.Pointer[string] // where to dial instead, if it is set
	wires  sync.Map               // *wire
}

// end ends the connections and dials, as the system's keep-alives and timeouts do.
func (n *network) end() {
	n.over.Store(true)
	n.wires.Range(func(w, _ any) bool { w.(*wire).Close(); return true })
}

func (n *network) DialContext(ctx context.Context, netw, address string) (net.Conn, error) {
	if to := n.to.Load(); to != nil {
		address = *to
	}
	if n.silent.Load() {
		for ctx.Err() == nil && !n.over.Load() {
			time.Sleep(10 * time.Millisecond)
		}
		return nil, os.ErrDeadlineExceeded
	}
	c, err := new(net.Dialer).DialContext(ctx, netw, address)
	if err != nil {
		return nil, err
	}
	w := &wire{Conn: c, n: n}
	n.wires.Store(w, nil)
	return w, nil
}

func (n *network) Dial(netw, address string) (net.Conn, error) {
	return n.DialTimeout(netw, address, time.Minute)
}

func (n *network) DialTimeout(netw, address string, d time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(bg, d)
	defer cancel()
	return n.DialContext(ctx, netw, address)
}

// A wire is a connection of a network. In silence it takes what is written, and
// brings nothing.
type wire struct {
	net.Conn
	n     *network
	wrote atomic.Bool
}

func (w *wire) Write(b []byte) (int, error) {
	if w.n.silent.Load() {
		return len(b), nil
	}
	w.wrote.Store(true)
	return w.Conn.Write(b)
}

func (w *wire) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	if w.wrote.Swap(false) {
		w.n.trips.Add(1)
	}
	return n, err
}

// open opens a *sql.DB on the server at address, a URL of pgserver. net may be nil.
func open(t testing.TB, driver, address string, net *network) *sql.DB {
	t.Helper()
	if net == nil {
		net = new(network)
	}
	var db *sql.DB
	switch driver {
	case "pq":
		c, err := pq.NewConnector(address + "&binary_parameters=yes")
		must(t, err)
		c.Dialer(net)
		db = sql.OpenDB(c)
	default:
		config, err := pgx.ParseConfig(address)
		must(t, err)
		config.DialFunc = net.DialContext
		config.DefaultQueryExecMode = pgx.QueryExecModeExec
		if driver == "pgx-simple" {
			config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
		}
		db = stdlib.OpenDB(*config)
	}
	db.SetMaxIdleConns(16) // To connect takes long on a busy machine.
	t.Cleanup(func() { db.Close() })
	return db
}

// migrate makes the table.
func migrate(t testing.TB, db *sql.DB) {
	t.Helper()
	p, err := goose.NewProvider(goose.DialectPostgres, db, migrations.FS, goose.WithTableName(migrations.Table))
	must(t, err)
	_, err = p.Up(bg)
	must(t, err)
}

var migrated sync.Once

// server is the server that tests share, with the table.
func server(t testing.TB) *pgserver.Server {
	t.Helper()
	srv := pgserver.Default()
	migrated.Do(func() { migrate(t, open(t, "pq", srv.URL(), nil)) })
	return srv
}

func newLocker(t testing.TB, db *sql.DB, opts ...leaselock.Option) *leaselock.Locker {
	t.Helper()
	l, err := leaselock.New(db, opts...)
	must(t, err)
	return l
}

func mustTry(t testing.TB, l swanlock.Locker, target string, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	held, err := l.TryAcquire(bg, target, opts...)
	must(t, err)
	return held
}
