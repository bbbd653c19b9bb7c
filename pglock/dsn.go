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
// connect_timeout, application_name, fallback_application_name, options,
// target_session_attrs, krbsrvname, client_encoding (which must be UTF8),
// min_protocol_version and max_protocol_version, and the usual settings of the
// server: search_path, timezone, statement_timeout and the like. Any other of
// these goes into options, as -c name=value.
//
// What does not matter to a lock is left out, as one of the drivers would send
// it to the server, which knows no such setting: keepalives and
// tcp_user_timeout, gssencmode=prefer, load_balance_hosts, pool_max_conns and
// what else pgxpool, pgx, lib/pq and Prisma take for themselves. What guards
// the connection and is beyond one of the drivers is refused by its name:
// sslcrl, require_auth, sslpassword, gssencmode=require and so on. Only
// channel_binding=require, which is in each of Neon's strings and which lib/pq
// cannot do, is honoured in another way: it makes sslmode verify-full, so that
// the server's certificate proves what the binding would, and a server whose
// certificate no known authority signed is refused (name one in sslrootcert).
//
// The result is always key=value, and names host, port, user, dbname and
// sslmode: the two drivers differ in what they take for granted and in how they
// read a URL, and programs on either must end up at the same locks. The
// defaults are libpq's (user is the system's name of the user that runs the
// program, dbname is user, sslmode is prefer), except that host is localhost:
// only libpq knows the folder of the socket that it was built for.
//
// The drivers disagree on PGSERVICE next to a connection string, and on
// PGHOSTADDR next to a host, so those are refused. With PGSERVICE the result
// names the service alone, which must be in the file that PGSERVICEFILE names,
// or else in ~/.pg_service.conf. The driver looks it up: say sslmode there. The
// drivers also read the PG variables themselves, and lib/pq refuses some that
// are set, though empty, or that it does not support.
//
// A password that is not ASCII must be in Unicode's form NFKC: PostgreSQL
// compares that form, to which libpq converts a password and the drivers do
// not.
//
// With nothing set the error is [ErrNoDSN]. Any other names the variable at
// fault and what is wrong with it, and never quotes its value, which may hold a
// password (only the name of an unknown service is quoted). The result may hold
// a password too: do not log it.
//
// [libpq defines them]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
func DSNFromEnv() (string, error) { return dsn.FromEnv() }
