// Package leaselock locks with rows of a table, in PostgreSQL or in what speaks
// its protocol. Each call is one statement, a transaction of its own, so it works
// where the session locks of the package pglock cannot be had: behind a pooler in
// transaction mode, and on distributed SQL. The row is replicated, so a lock
// survives a failover. It works with any database/sql driver for PostgreSQL.
//
// # What holds a lock
//
// A row names its holder's token and when its lease ends, by the server's clock.
// The lock is free when the token is gone or the lease has ended. An acquire takes
// a row that is free, by INSERT … ON CONFLICT DO UPDATE … WHERE. A refresh and a
// release touch a row that has the holder's own token, and so never that of a
// successor. The table is made by the migration of leaselock/migrations.
//
// Targets are told apart by swanlock.KeyOf. Two whose 64-bit keys are the same
// exclude each other, which is safe.
//
// # The lease
//
// Every lock has one: its TTL or, without swanlock.WithTTL, ten seconds that are
// refreshed in the background until Release. A crash frees the lock when its lease
// ends, and not before. The holder counts from before the last refresh was sent,
// by the clock of this machine that has gone further, so its deadline comes first.
// A holder that the network cuts off learns of it then; a row that was deleted or
// taken over is noticed by the next refresh.
//
// That rests on clocks that run at the same speed. The server's clock decides
// alone when a lock is free, so its time of day does not matter, only jumps: one
// that is set forward by a minute frees locks a minute early. Where another server
// may take over, or several serve the table, WithClockDrift makes up for the
// difference of their clocks.
//
// # What it does and does not do
//
// Every lock has a fence, with WithFence or without: the one before plus one, or
// the server's clock in microseconds, whichever is higher. Fences rise through
// crashes and failovers. They also do after Prune, and after a dump was restored,
// unless the clock was set back.
//
// Waiters are not in a line: the one that asks first when the lock is free gets
// it. A line would take a statement more for each acquire. Use pglock, or etcd, if
// waiters must be served in order. There are no shared locks: WithShared is
// refused with an error that matches errors.ErrUnsupported. There is no audit; the
// row names the last holder, and since when.
//
// If the server cannot be used, TryAcquire fails and Acquire waits on. After an
// acquire without an answer its token is withdrawn, which waits for a statement
// that the server has begun. So after any error nothing is held, with two
// exceptions, in which a lease that nobody has ends by itself: the server could not
// be told so within 5 s, or the statement reaches it only later, from a pooler's
// queue, when another has held the lock and freed it meanwhile.
//
// # Failover
//
// With synchronous replication (synchronous_standby_names) a grant is on the
// standby before its holder is told, and is in force after a promotion. Without
// it a grant may be lost, and two may hold the lock until the first one's next
// refresh, which fails. The same is true of a grant whose wait for the standby was
// cancelled by an administrator.
// https://www.postgresql.org/docs/current/warm-standby.html#SYNCHRONOUS-REPLICATION
//
// # Poolers
//
// In transaction mode a pooler may run each message on another connection, so a
// driver must send a statement in one piece, without preparing it first:
//   - lib/pq: binary_parameters=yes in the connection string. Without it lib/pq
//     sends two messages, and the second may find another client's statement.
//   - pgx: default_query_exec_mode=exec or simple_protocol in the connection
//     string.
//
// https://www.pgbouncer.org/features.html
//
// # CockroachDB and YugabyteDB
//
// This is the package to use there; pglock refuses CockroachDB, whose advisory
// locks exclude nobody. Its statements use nothing that these engines are known to
// lack, and statements that they take back with the SQLSTATE 40001 are sent again;
// but it was tested on neither. On CockroachDB use WithClockDrift with the
// cluster's --max-offset.
package leaselock
