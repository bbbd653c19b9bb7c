package pgtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/lib/pq"
	sqldblogger "github.com/simukti/sqldb-logger"
)

// driversEnv names the drivers to test with, by commas, or all of Modes.
const driversEnv = "SWANLOCK_DRIVERS"

// Modes are the drivers, in each way of working that changes what is sent or how
// it is cut short. Each is registered with database/sql by its name.
var Modes = []string{"postgres", "postgres-binary", "pgx", "pgx-exec", "pgx-simple", "pgx-cancel"}

// OnRequest are more ways to have a *sql.DB, tested where driversEnv names them:
// on a pgxpool, and through what wraps a driver. Open opens them.
var OnRequest = append([]string{"pgxpool"}, Wrapped...)

// Wrapped are those of them that wrap a driver.
var Wrapped = []string{
	"postgres-sqlmw", "pgx-sqlmw", "postgres-instrumentedsql", "pgx-instrumentedsql", "postgres-nhatotelsql", "pgx-nhatotelsql",
	"postgres-otelsql", "pgx-otelsql", "postgres-sqldblogger", "pgx-sqldblogger",
}

// Drivers are those that every test of a server runs on.
var Drivers = chosenDrivers(os.Getenv(driversEnv))

// EveryMode is for the few tests that run on all modes unless others are asked for.
var EveryMode = map[bool][]string{true: Modes, false: Drivers}[os.Getenv(driversEnv) == ""]

func chosenDrivers(asked string) []string {
	switch asked {
	case "":
		return []string{"postgres", "pgx"}
	case "all":
		return Modes
	}
	names := strings.Split(asked, ",")
	for _, name := range names {
		if !slices.Contains(Modes, name) && !slices.Contains(OnRequest, name) {
			panic(fmt.Sprintf("%s: %q is none of all, %s, %s", driversEnv, name, strings.Join(Modes, ", "), strings.Join(OnRequest, ", ")))
		}
	}
	return names
}

// IsPQ reports whether the driver is lib/pq.
func IsPQ(driver string) bool { return strings.HasPrefix(driver, "postgres") }

// EachDriver runs f on each of Drivers, at the same time and beside other tests:
// f takes targets of its own, and what it changes for all sessions of a database
// or a server it changes on one of its own. It calls t.Parallel.
func EachDriver(t *testing.T, f func(t *testing.T, driver string)) {
	t.Helper()
	t.Parallel()
	for _, driver := range Drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			f(t, driver)
		})
	}
}

// Open opens a *sql.DB with one of Modes or OnRequest. The function that it
// returns closes it, and what is below it.
func Open(driver, url string) (*sql.DB, func() error, error) {
	if driver == "pgxpool" {
		return openPgxpool(url)
	}
	if d := loggerOf(driver); d != nil {
		db := sqldblogger.OpenDriver(url, d, silentLogger{})
		return db, db.Close, nil
	}
	db, err := sql.Open(driver, url)
	if err != nil {
		return nil, nil, err
	}
	return db, db.Close, nil
}

// DriverOf is the driver of each mode, and of those on request that have one.
var DriverOf = map[string]driver.Driver{
	"postgres": &pq.Driver{},
	"postgres-binary": modeOf(func(url string) (driver.Connector, error) {
		separator := " "
		if strings.HasPrefix(url, "postgres://") {
			separator = "&"
		}
		return pq.NewConnector(url + separator + "binary_parameters=yes")
	}),
	"pgxpool":    pgxpoolDriver{},
	"pgx":        stdlib.GetDefaultDriver(),
	"pgx-exec":   pgxMode(func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeExec }),
	"pgx-simple": pgxMode(func(c *pgx.ConnConfig) { c.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol }),
	"pgx-cancel": pgxMode(func(c *pgx.ConnConfig) {
		c.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
			return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
		}
	}),
}

func init() {
	addWrappers()
	for name, d := range DriverOf {
		if !slices.Contains(sql.Drivers(), name) {
			sql.Register(name, d)
		}
		sql.Register("strict "+name, StrictDriver{d})
		sql.Register("pooled "+name, PoolerDriver{d})
	}
}

func pgxMode(change func(*pgx.ConnConfig)) driver.Driver {
	return modeOf(func(url string) (driver.Connector, error) {
		config, err := pgx.ParseConfig(url)
		if err != nil {
			return nil, err
		}
		change(config)
		return stdlib.GetConnector(*config), nil
	})
}

// A modeOf is a driver by the connectors that it makes.
type modeOf func(url string) (driver.Connector, error)

func (m modeOf) OpenConnector(url string) (driver.Connector, error) { return m(url) }

func (m modeOf) Open(url string) (driver.Conn, error) {
	connector, err := m(url)
	if err != nil {
		return nil, err
	}
	return connector.Connect(context.Background())
}
