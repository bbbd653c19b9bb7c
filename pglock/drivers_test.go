package pglock_test

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
)

// driversEnv names the drivers to test with, by commas: those of drivers, or all of modes.
const driversEnv = "SWANLOCK_DRIVERS"

// modes are the drivers, in each way of working that changes what is sent or how it is cut short. Each is registered with
// database/sql by its name.
var modes = []string{"postgres", "postgres-binary", "pgx", "pgx-exec", "pgx-simple", "pgx-cancel"}

// drivers are those that every test of a server runs on.
var drivers = chosenDrivers(os.Getenv(driversEnv))

// everyMode is for the few tests that run on all modes unless others are asked for.
var everyMode = map[bool][]string{true: modes, false: drivers}[os.Getenv(driversEnv) == ""]

func chosenDrivers(asked string) []string {
	switch asked {
	case "":
		return []string{"postgres", "pgx"}
	case "all":
		return modes
	}
	names := strings.Split(asked, ",")
	for _, name := range names {
		if !slices.Contains(modes, name) {
			panic(fmt.Sprintf("%s: %q is none of all, %s", driversEnv, name, strings.Join(modes, ", ")))
		}
	}
	return names
}

// isPQ says whether the driver is lib/pq.
func isPQ(driver string) bool { return strings.HasPrefix(driver, "postgres") }

// driverOf is each mode's driver.
var driverOf = map[string]driver.Driver{
	"postgres": &pq.Driver{},
	"postgres-binary": modeOf(func(url string) (driver.Connector, error) {
		separator := " "
		if strings.HasPrefix(url, "postgres://") {
			separator = "&"
		}
		return pq.NewConnector(url + separator + "binary_parameters=yes")
	}),
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
	for name, d := range driverOf {
		if !slices.Contains(sql.Drivers(), name) {
			sql.Register(name, d)
		}
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

// TestDriverModes: each mode speaks with the server as its name says.
func TestDriverModes(t *testing.T) {
	want := map[string]int{"postgres": 2, "postgres-binary": 1, "pgx": 1, "pgx-exec": 1, "pgx-simple": 1, "pgx-cancel": 1}
	prepared := map[string]int{"pgx": 1, "pgx-cancel": 1} // by a query that nobody prepared
	for _, name := range modes {
		t.Run(name, func(t *testing.T) {
			p := newProxy(t)
			conn := connOf(t, openURL(t, name, p.url))
			ask := func() { one[int](t, conn, "SELECT $1::int", 1) }
			ask()
			if got := p.trips(t, ask); got != want[name] {
				t.Errorf("a warm query with an argument took %d round trips, want %d", got, want[name])
			}
			if statements := one[int](t, conn, "SELECT count(*) FROM pg_prepared_statements WHERE statement = 'SELECT $1::int'"); statements != prepared[name] {
				t.Errorf("%d statements are prepared, want %d", statements, prepared[name])
			}
		})
	}
}
