-- What a pool's session sends on behalf of many callers at once. The pool has
-- the session to itself: no transaction is open, and the backend is the same,
-- which each statement checks before it does anything.

-- name: Backend :one
SELECT pg_backend_pid()::integer AS pid;

-- name: PoolOpen :one
-- Sets the session's lease, and says what must be known before locks are put on
-- it: idle_ms is the lease that it had, of its role perhaps, and room is for how
-- many locks the whole server has memory.
SELECT
    o.pid,
    o.idle_ms,
    o.idle,
    o.idle_in_transaction,
    o.room,
    (CASE WHEN @lease::text = '' THEN '' ELSE
        CASE WHEN o.idle <> '' THEN set_config('idle_session_timeout', @lease, false) ELSE '' END
        || set_config('idle_in_transaction_session_timeout', @lease, false)
    END)::text AS lease
FROM (
    SELECT
        pg_backend_pid()::integer AS pid,
        COALESCE((SELECT g.setting::bigint FROM pg_catalog.pg_settings g WHERE g.name = 'idle_session_timeout'), 0)::bigint AS idle_ms,
        COALESCE(current_setting('idle_session_timeout', true), '')::text AS idle,
        current_setting('idle_in_transaction_session_timeout')::text AS idle_in_transaction,
        (current_setting('max_locks_per_transaction')::bigint
            * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint))::bigint AS room
    OFFSET 0
) o;

-- name: PoolShut :one
-- Puts back what PoolOpen has set.
SELECT
    pg_backend_pid()::integer AS pid,
    (CASE WHEN pg_backend_pid() <> @pid::integer THEN '' ELSE
        CASE WHEN @idle::text <> '' THEN set_config('idle_session_timeout', @idle, false) ELSE '' END
        || CASE WHEN @idle_in_transaction::text <> '' THEN set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END
    END)::text AS lease;

-- name: Batch :one
-- Unlocks the keys of the first array, then tries those of the second, and
-- answers with a '1' or '0' for each, in order. Each try has a gate: 0, or where
-- the line is that it does not overtake. The second part reads the first one's row
-- before it calls anything.
WITH s AS MATERIALIZED (
    SELECT pg_backend_pid()::integer AS pid, pg_backend_pid() = @pid::integer AS ours
), r AS MATERIALIZED (
    SELECT COALESCE(string_agg(CASE WHEN k.ours AND pg_advisory_unlock(k.key) THEN '1' ELSE '0' END, ''), '')::text AS released
    FROM (SELECT s.ours, unnest(CAST(@release::text AS bigint[]))::bigint AS key FROM s) k
), a AS MATERIALIZED (
    SELECT COALESCE(string_agg(CASE
        WHEN k.ours AND (k.gate = 0 OR pg_try_advisory_xact_lock(k.gate, 0)) AND pg_try_advisory_lock(k.key) THEN '1' ELSE '0'
    END, ''), '')::text AS acquired
    FROM (
        SELECT s.ours AND r.released IS NOT NULL AS ours,
            unnest(CAST(@acquire::text AS bigint[]))::bigint AS key, unnest(CAST(@gates::text AS integer[]))::integer AS gate
        FROM s, r
    ) k
)
SELECT s.pid, r.released, a.acquired FROM s, r, a;

-- name: Heartbeat :one
-- Counts the locks of this session and sums up their keys.
SELECT
    pg_backend_pid()::integer AS pid,
    count(*)::bigint AS locks,
    COALESCE(sum(k.classid::bigint) + sum(k.objid::bigint), 0)::bigint AS sum
FROM pg_catalog.pg_locks k
WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.objsubid = 1 AND k.granted;

-- name: HeldKeys :many
-- The locks of this session, one by one.
SELECT
    pg_backend_pid()::integer AS pid,
    ((k.classid::bigint << 32) | k.objid::bigint)::bigint AS key,
    (k.mode = 'ShareLock')::boolean AS shared
FROM pg_catalog.pg_locks k
WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.objsubid = 1 AND k.granted;

-- name: Awaited :one
-- Whether anybody waits for the lock in the server's queue, or has a ticket below
-- the limit.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_locks k
    WHERE k.locktype = 'advisory' AND k.mode = 'ExclusiveLock'
        AND k.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
        AND (k.objsubid = 1 AND NOT k.granted
                AND k.classid::bigint = ((@key::bigint >> 32) & 4294967295) AND k.objid::bigint = (@key & 4294967295)
            OR k.objsubid = 2 AND k.granted
                AND k.classid::bigint = (@hash::integer & 4294967295) AND k.objid::bigint < @below::bigint AND k.objid::bigint > 0)
)::boolean AS awaited;

-- name: CancelWait :one
-- Ends the wait of another of our sessions, if it is waiting.
SELECT COALESCE(bool_or(pg_cancel_backend(k.pid)), false)::boolean AS cancelled
FROM pg_catalog.pg_locks k
WHERE k.locktype = 'advisory' AND k.pid = @pid::integer AND NOT k.granted;
