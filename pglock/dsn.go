package pglock

import "github.com/swanlake-io/swanlock/pglock/internal/dsn"

// ErrNoDSN is what [DSNFromEnv] returns when the environment does not say where
// the server is. libpq would try a local socket then; a program that wants
// locks is better told.
var ErrNoDSN = dsn.ErrNoDSN

// DSNFromEnv returns the connection string that the environment describes, for
// sql.Open with lib/pq (1.12 or later) or pgx alike:
// SWANLAKE_LOCK_POSTGRES_CONNECTION if it is set, else PGCONNECTION, else
// libpq's own variables (PGHOST, PGPORT, PGUSER, PGDATABASE, PGPASSWORD,
// PGPASSFILE, PGSSLMODE, PGSERVICE and so on). An empty variable or setting
// counts as unset, and as in libpq the PG variables fill in what a connection
// string leaves out.
//
// A connection string is a list of key=value or a postgres:// URL, as [libpq
// defines them], with the keys host, port, user, dbname, password, passfile,
// sslmode, sslnegotiation, sslcert, sslkey, sslrootcert, sslsni,
// connect_timeout, application_name, options and target_session_attrs. A
// run-time parameter goes into options, as -c name=value.
//
// The result is always key=value, and names host, port, user, dbname and
// sslmode: the two drivers differ in what they take for granted and in how they
// read a URL, and programs on either must end up at the same locks. The
// defaults are libpq's (user is the system's name for who runs the program,
// dbname is user, sslmode is prefer), but that host is localhost: only libpq
// knows the folder of the socket that it was built for.
//
// The drivers disagree on PGSERVICE next to a connection string, and on
// PGHOSTADDR next to a host, so those are refused. With PGSERVICE the result
// names the service alone, which the driver looks up: say sslmode there. The
// drivers also read the PG variables themselves, and lib/pq refuses some that
// are set, though empty, or that it does not support.
//
// A password that is not ASCII must be in Unicode's form NFKC: PostgreSQL
// compares that form, which libpq makes of what it is given and the drivers do
// not.
//
// With nothing set the error is [ErrNoDSN]. Any other names the variable at
// fault and what is wrong with it, and never quotes its value, which may hold a
// password. So may the result: it is not for logs.
//
// [libpq defines them]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
func DSNFromEnv() (string, error) { return dsn.FromEnv() }
