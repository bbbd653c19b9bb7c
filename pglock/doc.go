// Package pglock locks with PostgreSQL's session advisory locks, on
// connections that the caller keeps: a Session on one *sql.Conn, or TryAcquire
// and Acquire for a single lock. It works with any database/sql driver for
// PostgreSQL and is tested with lib/pq and pgx.
//
// # What holds a lock
//
// A lock belongs to the PostgreSQL session behind the connection. It is free
// as soon as that session ends, however it ends, and only the server is asked
// whether it is still there: Refresh looks it up in pg_locks, Release believes
// the unlock's own answer, and a session that cannot answer is destroyed,
// since that frees its locks for certain. sql.Conn.Close is no such end: it
// gives the session, with its locks, back to the pool. Release first.
//
// Two sessions exclude each other if they are in the same database, since
// advisory locks are per database, and agree on the Key, which is KeyOf(target).
// https://www.postgresql.org/docs/current/explicit-locking.html#ADVISORY-LOCKS
//
// # The lease
//
// With swanlock.WithTTL the server ends the session when it was idle for the
// TTL: idle_session_timeout, and idle_in_transaction_session_timeout inside a
// transaction, are set by the statement that takes the lock and put back by
// the one that frees the last. Every statement of ours on the session restarts
// it. Several locks on one session share the shortest TTL there: when nothing
// was sent for that long, all of them are lost. The holder counts from before
// the last refresh was sent, so it knows before the server acts. If the lock is
// taken in a transaction that is rolled back, the lock stays but the server's
// lease goes with the settings, until the next Refresh sets it again; if it is
// released in one, the lease's settings come back with the rollback and stay.
// Before PostgreSQL 14 there is no idle_session_timeout: then only the holder
// keeps time, and a warning says so once.
// https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
//
// # The caller's connection
//
// Nothing runs on it in the background unless WithAutoRefresh asks for it, so
// a loss is found when the TTL ends, or by the next call. Statements of ours
// take turns; yours must not be under way meanwhile: close your Rows first.
// A context that ends never cuts a statement of ours short, because both
// drivers would pay for that with the session: what is granted too late is
// given back. A statement that the server does not answer in time (five
// seconds, or 500 ms after the context's deadline if that is sooner) costs the
// session: it is cancelled, and if the driver waits even so, its connection is
// closed under it.
//
// # What it does not promise
//
// Advisory locks are not replicated: a failover loses them, and only a fence
// keeps a late writer out (see swanlock.WithFence for when even that may not). A
// pooler in transaction or statement mode breaks them; that is refused
// (ErrPooler) at the latest by the first Refresh, Release, Close or second
// acquire that meets another backend. Until then two of its clients may share a
// backend, and with it every lock: two Sessions notice, by the statements that
// they prepare, unless the pooler keeps track of those. Two targets whose keys
// collide exclude each other, which is safe, only slower.
package pglock
