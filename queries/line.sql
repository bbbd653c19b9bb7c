-- The line in which callers on all hosts wait for a lock, first come, first
-- served. It is a queue lock like CLH's: each waiter waits for its
-- predecessor's lock.
--
-- A place in the line is a ticket: an exclusive advisory lock in the space of
-- two integers. Of their 64 bits the upper 46 are those of the target's key,
-- and the lower 18 are a number above those of all live tickets. hash is the 64
-- bits with zeros for the number. class is the first integer, and slot the
-- second, again with zeros for the number. Two targets with the same hash share
-- a line, and their waiters wait for each other: among n targets there are
-- n²/2^47 such pairs (0.007 among a million).
--
-- A ticket ends with its session. A number below that of a live ticket is never
-- given again, so a ticket that is first stays first. With each ticket the
-- session takes a share of the number 0. By that a newcomer sees at once,
-- without a look at pg_locks, whether there is a line: if there is none, it can
-- lock the number 0 exclusively. Only a session that has done so starts a line.
-- It starts at a random number in the lower half, so that numbers remembered
-- from an earlier line are not mistaken for this one's. So a line that is never
-- empty has room for at least 131,000 tickets, one after the other. When the
-- numbers have run out, a newcomer gets no ticket, and tries again from time to
-- time, until all tickets are gone and a new line can start.
--
-- A look at pg_locks blocks all other lockers meanwhile. So a waiter that knows
-- between which numbers the live tickets are tries each number instead, which
-- takes 0.25 µs: a number that cannot be share-locked is taken.

-- name: TakeTicket :one
-- Takes a ticket. ticket is the first number of a new line, if there is none,
-- or otherwise the number after the highest, or one of the next three if others
-- take theirs at the same time. It is 0 if all of these were taken, and -1 if
-- the numbers have run out. own says that the session is in this line already:
-- then its own shares would not keep it from locking the number 0 exclusively.
-- lowest is the lowest live number before, or 0 if there was none. The setting
-- swanlock.waits marks the transaction: see Turn. alone is true if the session
-- has the number 0 exclusively, false if it has a share, and null if it has
-- neither.
--
-- With a ticket the statement sets the two settings of the lease to lease
-- (milliseconds), unless that is '' or this is another backend than backend.
-- leased says so. idle and idle_in_transaction are what they were.
WITH g AS MATERIALIZED (
    SELECT h.class, h.slot, CASE
        WHEN pg_catalog.set_config('swanlock.waits', 'yes', true) IS NULL THEN NULL
        WHEN NOT @own::boolean AND pg_catalog.pg_try_advisory_lock(h.class, h.slot) THEN true
        WHEN pg_catalog.pg_try_advisory_lock_shared(h.class, h.slot) THEN false
    END AS alone
    FROM (SELECT pg_catalog.int8shr(@hash::bigint, 32)::integer AS class, pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot) h
), t AS MATERIALIZED (
    SELECT
        g.class,
        g.slot,
        g.alone,
        CASE WHEN g.alone THEN pg_catalog.int4pl(1, (pg_catalog.random() OPERATOR(pg_catalog.*) 131070)::integer)
            ELSE pg_catalog.max(k.number) END AS last,
        COALESCE(pg_catalog.min(k.number), 0)::integer AS lowest
    FROM g LEFT JOIN LATERAL (
        SELECT pg_catalog.int8and(k.objid::bigint, 262143)::integer AS number
        FROM pg_catalog.pg_locks k
        WHERE NOT g.alone
            AND (k.locktype, k.objsubid, k.mode, pg_catalog.int8and(pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), -262144), k.database)
            OPERATOR(pg_catalog.=) ('advisory', 2, 'ExclusiveLock', @hash, (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
            AND pg_catalog.int8and(k.objid::bigint, 262143) OPERATOR(pg_catalog.>) 0 AND k.granted
    ) k ON true
    GROUP BY g.class, g.slot, g.alone
)
SELECT x.pid, x.ticket, x.lowest, x.idle, x.idle_in_transaction, (CASE
    WHEN x.ticket OPERATOR(pg_catalog.<=) 0 OR x.pid OPERATOR(pg_catalog.<>) @backend::integer OR @lease::varchar OPERATOR(pg_catalog.=) '' THEN false
    WHEN x.idle OPERATOR(pg_catalog.<>) '' AND pg_catalog.set_config('idle_session_timeout', @lease, false) IS NULL THEN false
    ELSE pg_catalog.set_config('idle_in_transaction_session_timeout', @lease, false) IS NOT NULL
END)::boolean AS leased
FROM (SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    (CASE
        WHEN t.alone IS NULL THEN 0
        WHEN t.alone THEN CASE
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, t.last)) AND pg_catalog.pg_try_advisory_lock_shared(t.class, t.slot)
                AND pg_catalog.pg_advisory_unlock(t.class, t.slot) THEN t.last
            WHEN pg_catalog.pg_advisory_unlock(t.class, t.slot) THEN 0
            ELSE 0
        END
        WHEN t.last OPERATOR(pg_catalog.<) 262140 THEN CASE
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 1))) THEN pg_catalog.int4pl(t.last, 1)
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 2))) THEN pg_catalog.int4pl(t.last, 2)
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 3))) THEN pg_catalog.int4pl(t.last, 3)
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 4))) THEN pg_catalog.int4pl(t.last, 4)
            WHEN pg_catalog.pg_advisory_unlock_shared(t.class, t.slot) THEN 0
            ELSE 0
        END
        WHEN pg_catalog.pg_advisory_unlock_shared(t.class, t.slot) THEN -1
        ELSE -1
    END)::integer AS ticket,
    t.lowest,
    COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
    pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction
FROM t OFFSET 0) x;

-- name: TakeNext :one
-- TakeTicket for a caller that has joined this line just before, and knows a
-- number of it, hint. It tries the numbers from hint on: the highest that is
-- taken is the highest of all, unless more than eight numbers in a row were
-- given up since. own says that hint is still this session's own ticket, which
-- the session cannot see by trying. ticket is also 0 if no number was found
-- taken.
WITH a AS MATERIALIZED (
    SELECT
        h.class, h.slot, @hint::integer AS hint, @own::boolean AS own,
        CASE WHEN pg_catalog.set_config('swanlock.waits', 'yes', true) IS NULL THEN false
            ELSE pg_catalog.pg_try_advisory_lock_shared(h.class, h.slot) END AS share
    FROM (SELECT pg_catalog.int8shr(@hash::bigint, 32)::integer AS class, pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot) h
), t AS MATERIALIZED (
    SELECT a.class, a.slot, a.share, LEAST(pg_catalog.int4pl(a.hint, 24), 262140) AS beyond, CASE WHEN a.share THEN COALESCE((
        SELECT pg_catalog.max(n.number)
        FROM pg_catalog.generate_series(a.hint, LEAST(pg_catalog.int4pl(a.hint, 32), 262143)) n (number)
        WHERE NOT CASE WHEN pg_catalog.pg_try_advisory_lock_shared(a.class, pg_catalog.int4pl(a.slot, n.number))
            THEN pg_catalog.pg_advisory_unlock_shared(a.class, pg_catalog.int4pl(a.slot, n.number)) ELSE false END
    ), CASE WHEN a.own THEN a.hint ELSE 262143 END) END AS last
    FROM a
)
SELECT x.pid, x.ticket, x.idle, x.idle_in_transaction, (CASE
    WHEN x.ticket OPERATOR(pg_catalog.<=) 0 OR x.pid OPERATOR(pg_catalog.<>) @backend::integer OR @lease::varchar OPERATOR(pg_catalog.=) '' THEN false
    WHEN x.idle OPERATOR(pg_catalog.<>) '' AND pg_catalog.set_config('idle_session_timeout', @lease, false) IS NULL THEN false
    ELSE pg_catalog.set_config('idle_in_transaction_session_timeout', @lease, false) IS NOT NULL
END)::boolean AS leased
FROM (SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    (CASE
        WHEN NOT t.share THEN 0
        WHEN t.last OPERATOR(pg_catalog.<) t.beyond THEN CASE
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 1))) THEN pg_catalog.int4pl(t.last, 1)
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 2))) THEN pg_catalog.int4pl(t.last, 2)
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 3))) THEN pg_catalog.int4pl(t.last, 3)
            WHEN pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 4))) THEN pg_catalog.int4pl(t.last, 4)
            WHEN pg_catalog.pg_advisory_unlock_shared(t.class, t.slot) THEN 0
            ELSE 0
        END
        WHEN pg_catalog.pg_advisory_unlock_shared(t.class, t.slot) THEN 0
        ELSE 0
    END)::integer AS ticket,
    COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
    pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction
FROM t OFFSET 0) x;

-- name: Turn :one
-- Waits until the ticket ahead is gone and then, if no other ticket is ahead,
-- for the lock; both together for slice at most (milliseconds). The answer is
-- one of
--    0: the lock was taken
--   -1: not yet
--   -2: the server is a standby
--   -3: the ticket ahead is gone, and Ahead must say which one is ahead now
--   the number of the ticket that is ahead now, found by trying the numbers from
--   lowest on, if lowest is not 0
-- With hint, a number of the line as for TakeNext, the statement first takes a
-- ticket for this session, which has none in the line: the next number, with
-- the one before as the number ahead. If that is taken it takes none, and
-- answers -1. If the statement fails, the ticket stays: see OwnTicket. ticket
-- is the one that was given or taken, or 0.
--
-- It does not wait, but only looks, if slice is '', or inside a transaction of
-- the caller's, which a wait that times out would abort: such a transaction has
-- the setting swanlock.waits, which TakeTicket has set in it. mine says that
-- the ticket is this session's: it is given up when the lock is taken. CASE and
-- COALESCE fix the order of the calls.
--
-- When the lock is taken, the settings of the place's lease are set to idle and
-- idle_in_transaction, unless the latter is '' or this is another backend than
-- backend. restored says so. InspectLocks knows this statement by its first words.
SELECT s.pid, s.waits, s.answer, s.ticket, (CASE
    WHEN s.answer OPERATOR(pg_catalog.<>) 0 OR s.pid OPERATOR(pg_catalog.<>) @backend::integer OR @idle_in_transaction::varchar OPERATOR(pg_catalog.=) '' THEN false
    WHEN @idle::varchar OPERATOR(pg_catalog.<>) '' AND pg_catalog.set_config('idle_session_timeout', @idle, false) IS NULL THEN false
    ELSE pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) IS NOT NULL
END)::boolean AS restored
FROM (SELECT
    s.pid,
    s.waits,
    s.ticket,
    (CASE
        WHEN pg_catalog.pg_is_in_recovery() THEN -2
        WHEN s.hint OPERATOR(pg_catalog.>) 0 AND s.ticket OPERATOR(pg_catalog.=) 0 THEN -1
        WHEN s.waits AND pg_catalog.set_config('lock_timeout', s.slice, true) IS NULL THEN -1
        WHEN s.waits AND s.ahead OPERATOR(pg_catalog.>) 0
            AND pg_catalog.pg_advisory_xact_lock_shared(s.class, pg_catalog.int4pl(s.slot, s.ahead)) IS NULL THEN -1
        WHEN s.ahead OPERATOR(pg_catalog.>) 0 AND s.lowest OPERATOR(pg_catalog.=) 0 THEN -3
        ELSE COALESCE(
            (
                SELECT pg_catalog.max(n.number)
                FROM pg_catalog.generate_series(s.lowest, pg_catalog.int4mi(s.ticket, 1)) n (number)
                WHERE NOT CASE WHEN pg_catalog.pg_try_advisory_lock_shared(s.class, pg_catalog.int4pl(s.slot, n.number))
                    THEN pg_catalog.pg_advisory_unlock_shared(s.class, pg_catalog.int4pl(s.slot, n.number)) ELSE false END
            ),
            CASE
                WHEN s.waits AND pg_catalog.set_config('lock_timeout', GREATEST(1, pg_catalog.int4mi(s.slice::integer, (1000 OPERATOR(pg_catalog.*)
                    extract(epoch FROM pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.statement_timestamp()))::integer))::varchar, true) IS NULL
                THEN -1
                WHEN NOT CASE
                    WHEN s.waits AND @shared::boolean THEN pg_catalog.pg_advisory_lock_shared(@key::bigint) IS NOT NULL
                    WHEN s.waits THEN pg_catalog.pg_advisory_lock(@key) IS NOT NULL
                    WHEN @shared THEN pg_catalog.pg_try_advisory_lock_shared(@key)
                    ELSE pg_catalog.pg_try_advisory_lock(@key)
                END THEN -1
                WHEN @mine::boolean AND pg_catalog.pg_advisory_unlock(s.class, pg_catalog.int4pl(s.slot, s.ticket))
                    AND pg_catalog.pg_advisory_unlock_shared(s.class, s.slot) THEN 0
                ELSE 0
            END)
    END)::bigint AS answer
FROM (
    SELECT
        s.pid,
        s.class,
        s.slot,
        s.waits,
        s.hint,
        @slice::varchar AS slice,
        @lowest::integer AS lowest,
        (CASE WHEN s.hint OPERATOR(pg_catalog.>) 0 THEN s.next ELSE @ticket::integer END)::integer AS ticket,
        (CASE WHEN s.hint OPERATOR(pg_catalog.>) 0 THEN pg_catalog.int4mi(s.next, 1) ELSE @ahead::integer END)::integer AS ahead
    FROM (
        SELECT
            h.pid,
            h.class,
            h.slot,
            h.hint,
            (@slice OPERATOR(pg_catalog.<>) '' AND (pg_catalog.current_setting('swanlock.waits', true) OPERATOR(pg_catalog.=) 'yes') IS NOT TRUE)::boolean AS waits,
            (CASE WHEN h.hint OPERATOR(pg_catalog.>) 0 AND pg_catalog.pg_try_advisory_lock_shared(h.class, h.slot) THEN (
                SELECT CASE
                    WHEN t.last OPERATOR(pg_catalog.<) LEAST(pg_catalog.int4pl(h.hint, 24), 262140)
                        AND pg_catalog.pg_try_advisory_lock(h.class, pg_catalog.int4pl(h.slot, pg_catalog.int4pl(t.last, 1))) THEN pg_catalog.int4pl(t.last, 1)
                    WHEN pg_catalog.pg_advisory_unlock_shared(h.class, h.slot) THEN 0
                    ELSE 0
                END
                FROM (
                    SELECT COALESCE(pg_catalog.max(n.number), 262143) AS last
                    FROM pg_catalog.generate_series(h.hint, LEAST(pg_catalog.int4pl(h.hint, 32), 262143)) n (number)
                    WHERE NOT CASE WHEN pg_catalog.pg_try_advisory_lock_shared(h.class, pg_catalog.int4pl(h.slot, n.number))
                        THEN pg_catalog.pg_advisory_unlock_shared(h.class, pg_catalog.int4pl(h.slot, n.number)) ELSE false END
                    OFFSET 0
                ) t
            ) ELSE 0 END)::integer AS next
        FROM (
            SELECT
                pg_catalog.pg_backend_pid()::integer AS pid,
                pg_catalog.int8shr(@hash::bigint, 32)::integer AS class,
                pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot,
                @hint::integer AS hint
            OFFSET 0
        ) h
        OFFSET 0
    ) s
    OFFSET 0
) s OFFSET 0) s;

-- name: OwnTicket :one
-- Finds the ticket of this session in a line, or 0.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    COALESCE(pg_catalog.max(pg_catalog.int8and(k.objid::bigint, 262143)), 0)::integer AS ticket
FROM pg_catalog.pg_locks k
WHERE (k.pid, k.locktype, k.objsubid, k.mode, pg_catalog.int8and(pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), -262144))
    OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 2, 'ExclusiveLock', @hash::bigint) AND k.granted;

-- name: Ahead :one
-- Finds the ticket ahead: the highest number below the ticket, or 0. lowest is
-- the lowest number of all.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    COALESCE(pg_catalog.max(pg_catalog.int8and(k.objid::bigint, 262143))
        FILTER (WHERE pg_catalog.int8and(k.objid::bigint, 262143) OPERATOR(pg_catalog.<) @ticket::integer), 0)::integer AS ahead,
    COALESCE(pg_catalog.min(pg_catalog.int8and(k.objid::bigint, 262143)), @ticket)::integer AS lowest
FROM pg_catalog.pg_locks k
WHERE (k.locktype, k.objsubid, k.mode, pg_catalog.int8and(pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), -262144), k.database)
    OPERATOR(pg_catalog.=) ('advisory', 2, 'ExclusiveLock', @hash::bigint,
        (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
    AND pg_catalog.int8and(k.objid::bigint, 262143) OPERATOR(pg_catalog.>) 0 AND k.granted;

-- name: DropTicket :one
-- Gives up a ticket. If this runs on another backend than pid, which has the
-- ticket, it ends that one, which cannot be reached any more.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    (CASE
        WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer
        THEN pg_catalog.pg_advisory_unlock(h.class, pg_catalog.int4pl(h.slot, @ticket::integer))
            AND pg_catalog.pg_advisory_unlock_shared(h.class, h.slot)
        ELSE COALESCE((
            SELECT pg_catalog.bool_or(pg_catalog.pg_terminate_backend(k.pid))
            FROM pg_catalog.pg_locks k
            WHERE (k.locktype, k.objsubid, k.mode, k.pid, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), k.database)
                OPERATOR(pg_catalog.=) ('advisory', 2, 'ExclusiveLock', @pid, pg_catalog.int8pl(@hash, @ticket),
                    (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
                AND k.granted
        ), false)
    END)::boolean AS dropped
FROM (SELECT pg_catalog.int8shr(@hash::bigint, 32)::integer AS class, pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot) h;

-- name: UndoTicket :one
-- Gives up what a TakeTicket or TakeNext that failed may have taken: every
-- ticket of this session and hash except those that are known, and the number 0
-- except for one share for each known ticket, of which there are shares. These
-- are given up, since nobody counts them, and taken again; the share that the
-- transaction has meanwhile keeps a newcomer from starting another line.
SELECT pg_catalog.count(u.undone)::bigint AS undone
FROM (
    SELECT CASE
        WHEN h.kept IS NULL THEN false
        WHEN k.number OPERATOR(pg_catalog.<>) 0 THEN pg_catalog.pg_advisory_unlock(h.class, pg_catalog.int4pl(h.slot, k.number))
        WHEN k.mode OPERATOR(pg_catalog.=) 'ExclusiveLock' THEN pg_catalog.pg_advisory_unlock(h.class, h.slot)
        WHEN (SELECT pg_catalog.count(CASE WHEN n.one IS NOT NULL THEN pg_catalog.pg_advisory_unlock_shared(h.class, h.slot) END)
                FROM pg_catalog.generate_series(0, @shares::integer) n (one)) OPERATOR(pg_catalog.>=) 0
            THEN (SELECT pg_catalog.count(CASE WHEN n.one IS NOT NULL THEN pg_catalog.pg_try_advisory_lock_shared(h.class, h.slot) END)
                FROM pg_catalog.generate_series(1, @shares) n (one)) OPERATOR(pg_catalog.>=) 0
    END AS undone
    FROM (
            SELECT g.class, g.slot, CASE WHEN @shares::integer OPERATOR(pg_catalog.=) 0 THEN false ELSE pg_catalog.pg_try_advisory_xact_lock_shared(g.class, g.slot) END AS kept
            FROM (SELECT pg_catalog.int8shr(@hash::bigint, 32)::integer AS class, pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot) g
            OFFSET 0
        ) h,
        LATERAL (
            SELECT l.mode, pg_catalog.int8and(l.objid::bigint, 262143)::integer AS number
            FROM pg_catalog.pg_locks l
            WHERE (l.pid, l.locktype, l.objsubid, pg_catalog.int8and(pg_catalog.int8or(pg_catalog.int8shl(l.classid::bigint, 32), l.objid::bigint), -262144))
                OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 2, @hash) AND l.granted
        ) k
    WHERE NOT k.number OPERATOR(pg_catalog.=) ANY (CAST(@known::varchar AS integer[]))
) u;

-- name: PrepareWait :one
-- Returns what a waiter must know of its session: its transaction, how long the
-- server lets a wait last before it looks for a deadlock or, from PostgreSQL 17
-- on, ends the session by transaction_timeout (deadlock_ms), and the settings of
-- the lease. It then sets those that are not '', and sets says so, but only on
-- the backend pid, and only if its transaction is not xact, that of an earlier
-- call. So it sets nothing in a transaction of the caller's, whose rollback
-- would take the settings back, or whose SET LOCAL they would replace.
SELECT
    s.pid,
    s.xact,
    s.deadlock_ms,
    s.idle,
    s.idle_in_transaction,
    s.sets,
    (CASE WHEN s.sets THEN pg_catalog.textcat(
        CASE WHEN @set_idle::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @set_idle, false) ELSE '' END,
        pg_catalog.set_config('idle_in_transaction_session_timeout', @set_idle_in_transaction, false))
    ELSE '' END)::varchar AS lease
FROM (
    SELECT
        x.pid,
        x.xact,
        (1000 OPERATOR(pg_catalog.*) extract(epoch FROM LEAST(CAST(pg_catalog.current_setting('deadlock_timeout') AS interval),
            CASE WHEN pg_catalog.current_setting('transaction_timeout', true) OPERATOR(pg_catalog.<>) '0'
                THEN CAST(pg_catalog.current_setting('transaction_timeout', true) AS interval) END)))::bigint AS deadlock_ms,
        COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
        pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction,
        (@set_idle_in_transaction::varchar OPERATOR(pg_catalog.<>) '' AND x.xact OPERATOR(pg_catalog.<>) @xact::bigint
            AND x.pid OPERATOR(pg_catalog.=) @pid::integer)::boolean AS sets
    FROM (
        SELECT pg_catalog.pg_backend_pid()::integer AS pid,
            (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact
    ) x
    OFFSET 0
) s;
