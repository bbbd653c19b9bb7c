-- The line of those who wait for a lock, first come first served, across all
-- hosts. A place in it is a ticket: an exclusive advisory lock in the space of
-- two integers, the target's 32-bit hash and a number above those of all live
-- tickets. A ticket goes with its session. Numbers below a live ticket's are
-- never given again, so who has nobody ahead of him never will. With each ticket
-- goes a share of the number 0, the gate, by which a newcomer sees at once, and
-- without a look at pg_locks, whether there is a line.

-- name: TakeTicket :one
-- Takes the number after the highest, or one of the next if others take theirs
-- at the same time; 0 if that failed too, or the numbers have run out until the
-- line is empty. The setting marks the transaction: see Turn. A look at pg_locks
-- stops everybody else who locks, so who was in this line a moment ago, and says
-- with which number, tries the dozen after it first: the highest that is taken,
-- if it is not the last of them, is the highest of all, unless a dozen in a row
-- have died in that moment. The hint itself counts if it is still the session's
-- own, whose locks it cannot see so.
WITH a AS MATERIALIZED (
    SELECT @hash::integer AS hash, @hint::bigint AS hint, @own::boolean AS own
), h AS MATERIALIZED (
    SELECT a.hint + 12 AS beyond, GREATEST(CASE WHEN a.own THEN a.hint ELSE 0 END, (
        SELECT max(n.number)
        FROM generate_series(a.hint + 1, CASE WHEN a.hint > 0 THEN LEAST(a.hint + 12, 2147483647) ELSE 0 END) n (number)
        WHERE NOT CASE WHEN pg_try_advisory_lock_shared(a.hash, n.number::integer)
            THEN pg_advisory_unlock_shared(a.hash, n.number::integer) ELSE false END
    ))::bigint AS near
    FROM a
), t AS MATERIALIZED (
    SELECT CASE WHEN h.near > 0 AND h.near < h.beyond THEN h.near ELSE (
        SELECT COALESCE(max(k.objid::bigint), 0)
        FROM pg_catalog.pg_locks k
        WHERE k.locktype = 'advisory' AND k.objsubid = 2 AND k.granted AND k.mode = 'ExclusiveLock'
            AND k.classid::bigint = (@hash & 4294967295)
            AND k.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
    ) END AS last
    FROM h
)
SELECT
    pg_backend_pid()::integer AS pid,
    (CASE
        WHEN set_config('swanlock.waits', 'yes', true) IS NULL THEN 0
        WHEN t.last > 2147483640 OR NOT pg_try_advisory_lock_shared(@hash, 0) THEN 0
        WHEN pg_try_advisory_lock(@hash, (t.last + 1)::integer) THEN t.last + 1
        WHEN pg_try_advisory_lock(@hash, (t.last + 2)::integer) THEN t.last + 2
        WHEN pg_try_advisory_lock(@hash, (t.last + 3)::integer) THEN t.last + 3
        WHEN pg_try_advisory_lock(@hash, (t.last + 4)::integer) THEN t.last + 4
        WHEN pg_advisory_unlock_shared(@hash, 0) THEN 0
        ELSE 0
    END)::integer AS ticket
FROM t;

-- name: Turn :one
-- Waits, no longer than the slice in all (milliseconds), until the ticket ahead
-- is gone, and then, if nobody else is ahead, for the lock. The answer is 0:
-- acquired, -1: not yet, -2: a standby, or the number of the ticket that is
-- ahead now. It does not wait, but only looks, if the slice is '', or inside a
-- transaction of the caller's, which a wait that fails would abort: there the
-- mark of TakeTicket is still set. CASE and COALESCE fix the order of the calls.
SELECT
    s.pid,
    s.waits,
    (CASE
        WHEN pg_is_in_recovery() THEN -2
        WHEN s.waits AND set_config('lock_timeout', s.slice, true) IS NULL THEN -1
        WHEN s.waits AND @ahead::integer > 0 AND pg_advisory_xact_lock_shared(@hash::integer, @ahead) IS NULL THEN -1
        ELSE COALESCE(
            CASE WHEN @ahead > 0 THEN (
                SELECT max(k.objid::bigint)
                FROM pg_catalog.pg_locks k
                WHERE k.locktype = 'advisory' AND k.objsubid = 2 AND k.granted AND k.mode = 'ExclusiveLock'
                    AND k.classid::bigint = (@hash::integer & 4294967295) AND k.objid::bigint < @ticket::integer AND k.objid::bigint > 0
                    AND k.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
            ) END,
            CASE
                WHEN s.waits AND set_config('lock_timeout', GREATEST(1,
                    s.slice::integer - (extract(epoch FROM clock_timestamp() - statement_timestamp()) * 1000)::integer)::text, true) IS NULL THEN -1
                WHEN NOT CASE
                    WHEN s.waits AND @shared::boolean THEN pg_advisory_lock_shared(@key::bigint) IS NOT NULL
                    WHEN s.waits THEN pg_advisory_lock(@key) IS NOT NULL
                    WHEN @shared THEN pg_try_advisory_lock_shared(@key)
                    ELSE pg_try_advisory_lock(@key)
                END THEN -1
                WHEN @mine::boolean AND pg_advisory_unlock(@hash, @ticket) AND pg_advisory_unlock_shared(@hash, 0) THEN 0
                ELSE 0
            END)
    END)::bigint AS answer
FROM (
    SELECT
        pg_backend_pid()::integer AS pid,
        @slice::text AS slice,
        (@slice <> '' AND COALESCE(current_setting('swanlock.waits', true), '') <> 'yes')::boolean AS waits
) s;

-- name: DropTicket :one
-- Leaves the line. If the answer comes from another backend than the one that
-- gave the ticket, that one is ended: it cannot be spoken to any more.
SELECT
    pg_backend_pid()::integer AS pid,
    (CASE
        WHEN pg_backend_pid() = @pid::integer THEN pg_advisory_unlock(@hash::integer, @ticket::integer) AND pg_advisory_unlock_shared(@hash, 0)
        ELSE COALESCE((
            SELECT bool_or(pg_terminate_backend(k.pid))
            FROM pg_catalog.pg_locks k
            WHERE k.locktype = 'advisory' AND k.objsubid = 2 AND k.granted AND k.mode = 'ExclusiveLock' AND k.pid = @pid
                AND k.classid::bigint = (@hash::integer & 4294967295) AND k.objid::bigint = @ticket
                AND k.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
        ), false)
    END)::boolean AS dropped;

-- name: UndoTicket :one
-- Leaves the line after a TakeTicket that failed, whose number nobody knows:
-- every ticket of this session and hash goes but those that are known, and one
-- share of the gate.
SELECT count(u.undone)::bigint AS undone
FROM (
    SELECT CASE WHEN k.objid = 0 THEN pg_advisory_unlock_shared(@hash::integer, 0) ELSE pg_advisory_unlock(@hash, k.objid::bigint::integer) END AS undone
    FROM pg_catalog.pg_locks k
    WHERE k.locktype = 'advisory' AND k.objsubid = 2 AND k.granted AND (k.mode = 'ExclusiveLock') = (k.objid <> 0) AND k.pid = pg_backend_pid()
        AND k.classid::bigint = (@hash::integer & 4294967295)
        AND NOT k.objid::bigint = ANY (CAST(@known::text AS bigint[]))
) u;
