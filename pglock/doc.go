// Package pglock locks with PostgreSQL's session advisory locks, on
// connections that the caller keeps: a Pool on a *sql.DB, for any number of
// goroutines and targets; a Session on one *sql.Conn; or TryAcquire and Acquire
// for a single lock. It works with any database/sql driver for PostgreSQL and is
// tested with lib/pq, pgx, a pgxpool, and what wraps a driver.
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
// the last refresh was sent, so it knows before the server acts.
//
// Before PostgreSQL 14 there is no idle_session_timeout: then only the holder
// keeps time, and a warning says so once.
// https://www.postgresql.org/docs/current/runtime-config-client.html#GUC-IDLE-SESSION-TIMEOUT
//
// # The lease in a transaction
//
// The settings belong to the caller's transaction, if there is one, and a rollback
// takes back what was set in it, though not the locks. After an acquire that is
// rolled back the lock stays without the server's lease until the next Refresh.
// After a release that is rolled back the lease of the released lock is there again.
// So the other locks of the session, those without a TTL too, count on that lease
// until a statement of ours shows that the transaction is over: refresh one of them
// then, which sets the right lease. The next acquire on the session and Session.Close
// do so as well. Where no such statement follows the rollback, the lease stays on the
// connection and ends it, for its next user too, when it was idle for that long:
// release outside of the transaction, or Close after it. What SET LOCAL has set is
// never taken for the caller's own: a lease under it is one of the transaction alone,
// and that of the session begins with the first Refresh after it.
//
// # The caller's connection
//
// Nothing runs on it in the background unless WithAutoRefresh asks for it, so
// a loss is found when the TTL ends, or by the next call. Statements of ours
// take turns; yours must not be under way meanwhile: close your Rows first.
// A context that ends never cuts a statement of ours short, because both
// drivers would pay for that with the session. The call returns, half a second
// after its context at the latest, and what it had begun is finished in the
// background: a lock that is granted then is given back, and a lock whose release
// was not answered is lost (its Done is closed at once) and unlocked when the
// server answers. A call without a deadline returns when the server has been silent
// for five seconds. The session lives on for as long as its locks can wait for an
// answer: for their TTL, and ten seconds without one. Then its locks are lost, and
// its connection is closed. With lib/pq behind a wrapper that hides it, a
// connection to a server that is silent may stay in use until the network gives up.
//
// # The pool
//
// A Pool keeps many locks on few sessions, which are its own: it may use them
// at any time, so it proves their locks at every heartbeat and unlocks what has
// expired or was dropped. Calls that come while a statement is under way travel
// together in the next one. A session's lease is set once, when it is opened, to
// the TTL of its locks or somewhat less, and every statement restarts it; each
// lock's own TTL is kept by the holder's process.
//
// # The line
//
// Who waits in Acquire takes a ticket: an advisory lock in the space of two
// integers (the upper 46 bits of the key; in the lower 18 a number one above the
// highest live ticket, or any if there is none), which goes with its session. He waits for the
// ticket ahead of his, in slices of nine tenths of deadlock_timeout, finds who is ahead when
// that is gone, and when nobody is, waits for the lock itself, in the server's
// own queue, which a try does not overtake. He finds that out by trying the
// numbers below his own: a look at pg_locks would stop everybody else for as long. A Pool's newcomers see that there is a
// line by the number 0, of which each waiter has a share. Slices keep the
// snapshot that a waiting statement holds young, and end before
// deadlock_timeout. An application that takes advisory locks of two integers
// itself may by chance (one in 2^32 for each first integer) stand in a line.
//
// Two targets whose keys are alike in those 46 bits stand in one line (among n
// targets about n²/2^47 pairs do: 0.007 of a million): while somebody waits for
// the one, an Acquire of the other may wait behind it, though that lock is free. A
// try is not concerned. A line that never empties has at least 131,000 numbers;
// when they have run out, newcomers look again every quarter of a second until
// all who have a ticket were served, and then begin the next line in any order.
//
// A place in line is the session's. A Pool's Acquire that loses it with the session,
// or cannot reach the server, takes another at the end when the server is back. A
// waiter that is cut off without a word keeps its place, and stops those behind, for
// its TTL, a second at least; without a TTL, or in a transaction on a Session, for as
// long as TCP takes.
//
// # The driver
//
// A session is known by what the server says of it: a mark of ours, the setting
// swanlock.session, and the backend's process id and start. So this process finds
// it again whatever the driver hands out: on a *sql.DB that pgx's
// stdlib.OpenDBFromPool made, where each checkout is a new connection of the
// driver's, and behind wrappers that log or trace, whose connections may be values.
//
// What a *sql.Conn that is closed too early leaves on its session, the session
// keeps in its pool: the lock, and with a TTL the two timeouts, by which the server
// may end it while it idles or another part of the program uses it. It is settled
// when this package next takes a lock on that session; nobody is refused for it.
//
// That a session is destroyed means that its holders are told, that the server is
// asked to end it, and that the driver's connection is closed; on a pgxpool the
// last alone would give it back alive. A pgxpool closes by itself what is in a
// transaction, or busy. A session that does not answer is ended by a Pool through
// another connection of its *sql.DB (pg_terminate_backend, of that process id and
// start), in the background and for five seconds at most. A Session has no other
// connection: then its locks last until the server finds out, by their TTL or by
// its TCP keepalives (tcp_keepalives_idle, client_connection_check_interval).
//
// A wrapper in which the driver's own connection cannot be seen, neither as a field
// nor behind one, costs this: on a silent network lib/pq is cancelled by a context,
// and leaves a goroutine that waits until the network speaks again; and a call of
// ours while your Rows are open may cost them, and the session.
//
// # What it does not promise
//
// Advisory locks are not replicated: a failover loses them, and only a fence
// keeps a late writer out (see swanlock.WithFence for when even that may not).
// A pooler in transaction or statement mode breaks them; that is refused
// (ErrPooler): by a Pool when it opens, by all others when the answer comes
// from another backend than the one that granted the lock, or when the backend
// that is asked for a lock has the mark of another process or of a connection that
// is open, and advisory locks. A session is marked before the first lock, and
// again where a rollback or DISCARD ALL took the mark, in a statement of its own;
// the mark stays there, and with it swanlock.lease, the number of the last change of
// the lease. Two targets whose keys collide exclude each other, which is
// safe, only slower.
package pglock
