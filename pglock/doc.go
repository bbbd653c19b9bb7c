// Package pglock locks with PostgreSQL's session advisory locks, on
// connections that the caller keeps: a Pool on a *sql.DB, for any number of
// goroutines and targets; a Session on one *sql.Conn; or TryAcquire and Acquire
// for a single lock. It works with any database/sql driver for PostgreSQL and is
// tested with lib/pq, pgx, a pgxpool, and what wraps a driver.
//
// # What holds a lock
//
// A lock belongs to the PostgreSQL session behind the connection. It is free as
// soon as that session ends, however it ends, and only the server decides
// whether it is still held: Refresh looks it up in pg_locks, Release believes
// the unlock's own answer, and a session that cannot answer is destroyed, since
// that frees its locks for certain. sql.Conn.Close does not end the session: it
// gives the session, with its locks, back to the *sql.DB. Release first.
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
// that lease. Several locks on one session share the shortest TTL: when nothing
// was sent for that long, all of them are lost. The holder counts from before
// the last refresh was sent, so it knows before the server acts.
//
// Before PostgreSQL 14 there is no idle_session_timeout: then only the holder
// keeps the time, and a warning says so once.
// https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
//
// # The lease in a transaction
//
// The settings belong to the caller's transaction, if there is one. A rollback
// takes back the settings that were changed in it, though not the locks.
//
// After an acquire that is rolled back, the lock has no lease on the server
// until the next Refresh; what ends it then are the timeouts of the role or the
// database, and it counts on these if they are shorter than its TTL. After a
// release that is rolled back, the lease of the
// released lock is there again. So the other locks of the session, even those
// without a TTL, count on that lease until a statement of ours has shown that
// the transaction is over, and has set the right lease: Refresh of one of them,
// the next acquire on the session, or Session.Close. Without such a statement
// the lease stays on the connection, and ends it, for its next user too, when
// it was idle for that long. So release outside of the transaction, or Close
// after it.
//
// What SET LOCAL has set is never taken for the caller's own settings. A lease
// that is set under it ends with the transaction, and the session's lease
// begins with the first Refresh after it. It counts on the caller's timeouts
// until then, but for those that SET LOCAL hides on a session that is new here.
//
// # The caller's connection
//
// Nothing runs on it in the background unless WithAutoRefresh or WithHeartbeat asks
// for it, so a loss is found when the TTL ends, or by the next call. Statements of
// ours take turns; yours must not be under way meanwhile: close your Rows first
// (ErrBusy).
//
// A context that ends never cuts a statement of ours short, because both
// drivers may lose the session by that. The call returns, half a second
// after its context at the latest (two seconds for a Release or Close whose
// context had ended before it), and what it had begun is finished in the
// background: a lock that is granted then is given back, and a lock whose release
// was not answered is lost (its Done is closed at once) and unlocked when the
// server answers.
//
// # The pool
//
// A Pool keeps many locks on few sessions, which are its own: it may use them
// at any time, so it proves their locks at every heartbeat and unlocks what has
// expired or was dropped. Calls that come while a statement is under way are
// sent together in the next one. A session's lease is set once, when it is
// opened, to the TTL of its locks or somewhat less, and every statement
// restarts it; each lock's own TTL is kept by the holder's process. Where
// connections are scarce, locks with different TTLs share a session, which has
// the shortest lease that they need.
//
// # The line
//
// Acquire takes a place in a line that all hosts share. The line is made of
// advisory locks too, so a place ends with its session. A waiter waits in the
// server for the place ahead of its own, for nine tenths of deadlock_timeout at
// a time, and for the lock when no place is ahead. TryAcquire does not stand in
// line, nor does the first try of a Session's Acquire: each takes a lock that
// is free at that time. A Pool's Acquire sees in the same round trip that there
// is a line, and joins it.
//
// A Pool's Acquire that loses its place with the session, or cannot reach the
// server, takes another place, at the end, when the server is back.
//
// # The driver
//
// A session is known by what the server says of it: a mark of ours, the setting
// swanlock.session, and the backend's process id and start. So this process finds
// it again whatever the driver hands out: on a *sql.DB that pgx's
// stdlib.OpenDBFromPool made, where each checkout is a new connection of the
// driver's, and behind wrappers that log or trace, whose connections may be values.
// A session is marked before the first lock, and again where a rollback or DISCARD
// ALL took the mark, in a statement of its own; the mark stays there, and with it
// swanlock.lease, the number of the last change of the lease.
//
// If a *sql.Conn is closed before Release, its session goes back to the *sql.DB
// with the lock on it, and with a TTL also with the two timeouts, by which the
// server may end it while it is idle or another part of the program uses it.
// When this package next takes a lock on that session, it first unlocks what
// was left, and puts the settings back.
//
// To destroy a session means to tell the holders of its locks, to ask the
// server to end it, and to close the driver's connection. On a pgxpool the last
// alone would give the session back alive, unless it is in a transaction or
// busy. If a session does not answer, a Pool ends it through another connection
// of its *sql.DB (pg_terminate_backend, of that process id and start), in the
// background and for five seconds at most. A Session has no other connection:
// then its locks last until the server finds out, by their TTL or by its TCP
// keepalives (tcp_keepalives_idle, client_connection_check_interval).
//
// # Limits
//
// Replication: advisory locks are not replicated. A failover loses them, and only a
// fence keeps a late writer out (see swanlock.WithFence for when even that may not).
//
// Poolers: one in transaction or statement mode breaks session locks. It is refused
// (ErrPooler): by a Pool when it opens, by all others when the answer comes from
// another backend than the one that granted the lock, or when the backend that is
// asked for a lock has advisory locks and the mark of another process, or of a
// connection that is open.
//
// Keys: two targets whose 64-bit keys collide exclude each other, which is safe,
// only slower.
//
// Lines: two targets whose keys are alike in their upper 46 bits share one line
// (of n targets about n²/2^47 pairs do: 0.007 pairs of a million targets).
// While a caller waits for the one, an Acquire of the other may wait behind it,
// though that lock is free; a try does not. An application that takes advisory
// locks of two integers itself may stand in a line by chance, for each pair of
// a target and a first integer less than once in 2^32. A line that is never
// empty has at least 131,000 places. When they are used up, newcomers look
// again every quarter of a second until all that have a place were served, and
// begin the next line in any order.
//
// Places: a waiter that is cut off without a word stops those behind it for its TTL,
// a second at least, or for 10 s without a TTL; without one in a Pool, and on a Session
// in a transaction, or with locks that have no TTL, for as long as TCP takes. If a *sql.Conn is closed while a
// Session waits on it, the place stays on that session, in its pool, for the same time
// after the session was last used, or until this package next takes a lock on it.
//
// Slow statements: a session does one statement at a time. A slow one makes
// every other call on the session wait, a refresh too: locks with a TTL may
// expire meanwhile. A call waits for a statement of your own as long as that
// takes, or until the call's context ends, and then nothing was sent. A
// statement of ours that takes five seconds is treated as silence; a Pool has
// it cancelled then, so that only that call fails.
//
// Silence: a call without a deadline returns when the server has not answered
// for five seconds. The session lives on for as long as one of its locks can
// wait for an answer: for what is left of its TTL, and without a TTL for a
// minute from when the statement was sent. Then its locks are lost, and its
// connection is closed; a connection without locks is closed at once. A server
// that is cut off, and not dead, keeps a lock without a TTL for as long as TCP
// takes to notice.
//
// Wrappers of a driver: if the driver's own connection is not in a field of the
// wrapper's, nor in one inside, a call of ours while your Rows are open may
// lose them, and the session. On a silent network lib/pq is then cancelled by a
// context, and leaves a goroutine and a connection in use until the network
// works again.
//
// How it works inside is in docs/design.md of the repository, and what PostgreSQL and
// the drivers do, with sources, in docs/postgresql.md.
package pglock
