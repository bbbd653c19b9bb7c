package pgtest

import (
	"context"
	"database/sql/driver"

	"github.com/XSAM/otelsql"
	"github.com/luna-duclos/instrumentedsql"
	"github.com/ngrok/sqlmw"
	sqldblogger "github.com/simukti/sqldb-logger"
	nhatotelsql "go.nhat.io/otelsql"
)

// addWrappers adds to DriverOf. Programs wrap their driver to log, trace or count what it does. What is left
// for us to see of a connection then depends on the wrapper: sqlmw, instrumentedsql
// and go.nhat.io/otelsql hand out struct values, which have no identity; otelsql and
// sqldb-logger pointers.
func addWrappers() {
	for _, name := range []string{"postgres", "pgx"} {
		d := DriverOf[name]
		DriverOf[name+"-sqlmw"] = sqlmw.Driver(d, sqlmw.NullInterceptor{})
		DriverOf[name+"-otelsql"] = otelsql.WrapDriver(d)
		DriverOf[name+"-instrumentedsql"] = instrumentedsql.WrapDriver(d)
		DriverOf[name+"-nhatotelsql"] = nhatotelsql.Wrap(d)
	}
}

// loggerOf returns the driver whose connections sqldb-logger wraps for the driver
// of that name, or nil: it gives no driver of its own, only a *sql.DB.
func loggerOf(name string) driver.Driver {
	switch name {
	case "postgres-sqldblogger":
		return DriverOf["postgres"]
	case "pgx-sqldblogger":
		return DriverOf["pgx"]
	}
	return nil
}

// A silentLogger is where sqldb-logger logs to.
type silentLogger struct{}

func (silentLogger) Log(context.Context, sqldblogger.Level, string, map[string]any) {}
