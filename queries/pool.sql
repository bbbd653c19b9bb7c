-- What a pool's session sends on behalf of many callers at once. It has the
-- session to itself: no transaction is open, and the backend is the same.

-- name: PoolOpen :one
-- What must be known of a session before locks are put on it, and how many
-- locks the whole server has room for.
SELECT
    pg_backend_pid()::integer AS pid,
    pg_is_in_recovery()::boolean AS standby,
    COALESCE(current_setting('idle_session_timeout', true), '')::text AS idle,
    current_setting('idle_in_transaction_session_timeout')::text AS idle_in_transaction,
    (current_setting('max_locks_per_transaction')::bigint
        * (current_setting('max_connections')::bigint + current_setting('max_prepared_transactions')::bigint))::bigint AS room;

-- name: Batch :one
-- Unlocks the keys of the first array, then tries those of the second, and
-- answers with a '1' or '0' for each, in order. The second part reads the first
-- one's row before it calls anything.
WITH r AS MATERIALIZED (
    SELECT COALESCE(string_agg(CASE WHEN pg_advisory_unlock(k.key) THEN '1' ELSE '0' END, ''), '')::text AS released
    FROM (SELECT unnest(CAST(@release::text AS bigint[]))::bigint AS key) k
), a AS MATERIALIZED (
    SELECT COALESCE(string_agg(CASE WHEN r.released IS NOT NULL AND pg_try_advisory_lock(k.key) THEN '1' ELSE '0' END, ''), '')::text AS acquired
    FROM r, (SELECT unnest(CAST(@acquire::text AS bigint[]))::bigint AS key) k
)
SELECT
    pg_backend_pid()::integer AS pid,
    r.released,
    a.acquired,
    (CASE WHEN @lease::text <> '' AND current_setting('idle_session_timeout', true) IS NOT NULL
        THEN set_config('idle_session_timeout', @lease, false) ELSE '' END)::text AS lease
FROM r, a;

-- name: Heartbeat :one
-- Counts the locks of this session, sums up their keys, and sets the lease.
SELECT
    pg_backend_pid()::integer AS pid,
    count(*)::bigint AS locks,
    COALESCE(sum(k.classid::bigint) + sum(k.objid::bigint), 0)::bigint AS sum,
    (CASE WHEN @lease::text <> '' AND current_setting('idle_session_timeout', true) IS NOT NULL
        THEN set_config('idle_session_timeout', @lease, false) ELSE '' END)::text AS lease
FROM pg_catalog.pg_locks k
WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.objsubid = 1 AND k.granted;

-- name: HeldKeys :many
-- The locks of this session, one by one.
SELECT ((k.classid::bigint << 32) | k.objid::bigint)::bigint AS key, (k.mode = 'ShareLock')::boolean AS shared
FROM pg_catalog.pg_locks k
WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.objsubid = 1 AND k.granted;

-- name: Awaited :one
-- Whether anybody waits in the server's queue for a lock.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_locks k
    WHERE k.locktype = 'advisory' AND k.objsubid = 1 AND NOT k.granted
        AND k.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = current_database())
        AND k.classid::bigint = ((@key::bigint >> 32) & 4294967295) AND k.objid::bigint = (@key & 4294967295)
)::boolean AS awaited;
