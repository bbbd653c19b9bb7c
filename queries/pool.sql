-- The statements of a pool's session, for many callers at once. The pool has
-- the session to itself, so no transaction is open. Each statement that changes
-- something checks first that the backend is still the same.

-- name: Backend :one
SELECT pg_catalog.pg_backend_pid()::integer AS pid;

-- name: PoolOpen :one
-- Sets the session's lease and some other settings, and returns what must be
-- known before locks are taken on it. idle_ms is the lease that it had, perhaps
-- its role's. room is the number of locks for which the whole server has
-- memory. deadlock_ms is as in PrepareWait. The isolation is read committed,
-- under which other sessions cannot make the audit's rows fail.
SELECT
    o.pid,
    o.idle_ms,
    o.idle,
    o.idle_in_transaction,
    o.room,
    o.deadlock_ms,
    o.isolation,
    (
        SELECT pg_catalog.count(pg_catalog.set_config(w.name, w.setting, false))
        FROM (VALUES ('default_transaction_isolation', 'read committed'), ('lock_timeout', '1s'),
            ('tcp_keepalives_idle', '15'), ('tcp_keepalives_interval', '5'), ('tcp_keepalives_count', '3')) w(name, setting)
    )::bigint AS settings,
    (CASE WHEN @lease::varchar OPERATOR(pg_catalog.=) '' THEN '' ELSE pg_catalog.textcat(
        CASE WHEN o.idle OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @lease, false) ELSE '' END,
        pg_catalog.set_config('idle_in_transaction_session_timeout', @lease, false))
    END)::varchar AS lease
FROM (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        COALESCE((
            SELECT g.setting::bigint FROM pg_catalog.pg_settings g WHERE g.name OPERATOR(pg_catalog.=) 'idle_session_timeout'
        ), 0)::bigint AS idle_ms,
        COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
        pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction,
        pg_catalog.current_setting('default_transaction_isolation')::varchar AS isolation,
        pg_catalog.int8mul(pg_catalog.current_setting('max_locks_per_transaction')::bigint, pg_catalog.int8pl(
            pg_catalog.current_setting('max_connections')::bigint, pg_catalog.current_setting('max_prepared_transactions')::bigint))::bigint AS room,
        (1000 OPERATOR(pg_catalog.*) extract(epoch FROM CAST(pg_catalog.current_setting('deadlock_timeout') AS interval)))::bigint AS deadlock_ms
    OFFSET 0
) o;

-- name: PoolShut :one
-- Puts back what PoolOpen has set: the lease and the isolation to the values
-- given, and the other settings to those that the connection began with.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    (
        SELECT pg_catalog.count(pg_catalog.set_config(g.name, g.reset_val, false))
        FROM pg_catalog.pg_settings g
        WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer AND pg_catalog.array_position(
            ARRAY['lock_timeout', 'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count'], g.name) IS NOT NULL
    )::bigint AS settings,
    (CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) @pid THEN '' ELSE pg_catalog.textcat(pg_catalog.textcat(
        CASE WHEN @idle::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @idle, false) ELSE '' END,
        CASE WHEN @idle_in_transaction::varchar OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END),
        pg_catalog.set_config('default_transaction_isolation', @isolation::varchar, false))
    END)::varchar AS lease;

-- name: Batch :one
-- Unlocks the keys of release, then tries to lock those of acquire, and answers
-- with a '1' or '0' for each, in order. lines has, for each try, the hash of
-- the line that it does not overtake, or 0: see TryAcquireWith. The second part
-- reads the first one's row before it locks anything, so that the unlocks come
-- first.
WITH s AS MATERIALIZED (
    SELECT pg_catalog.pg_backend_pid()::integer AS pid, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer AS ours
), r AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.string_agg(CASE WHEN k.ours AND pg_catalog.pg_advisory_unlock(k.key) THEN '1' ELSE '0' END, ''), '')::varchar AS released
    FROM (SELECT s.ours, pg_catalog.unnest(CAST(@release::varchar AS bigint[]))::bigint AS key FROM s) k
), a AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.string_agg(CASE
        WHEN k.ours AND (k.line OPERATOR(pg_catalog.=) 0 OR pg_catalog.pg_try_advisory_xact_lock(
                pg_catalog.int8shr(k.line, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(k.line, 32), 32)::integer))
            AND pg_catalog.pg_try_advisory_lock(k.key) THEN '1'
        ELSE '0'
    END, ''), '')::varchar AS acquired
    FROM (
        SELECT s.ours AND r.released IS NOT NULL AS ours,
            pg_catalog.unnest(CAST(@acquire::varchar AS bigint[]))::bigint AS key, pg_catalog.unnest(CAST(@lines::varchar AS bigint[]))::bigint AS line
        FROM s, r
    ) k
)
SELECT s.pid, r.released, a.acquired FROM s, r, a;

-- name: Heartbeat :one
-- Counts the locks of this session, and adds up the two halves of their keys.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    pg_catalog.count(*)::bigint AS locks,
    COALESCE(pg_catalog.sum(pg_catalog.int8pl(k.classid::bigint, k.objid::bigint)), 0)::bigint AS sum
FROM pg_catalog.pg_locks k
WHERE (k.pid, k.locktype, k.objsubid) OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1) AND k.granted;

-- name: HeldKeys :many
-- Lists the locks of this session.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint)::bigint AS key,
    (k.mode OPERATOR(pg_catalog.=) 'ShareLock')::boolean AS shared
FROM pg_catalog.pg_locks k
WHERE (k.pid, k.locktype, k.objsubid) OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1) AND k.granted;

-- name: Awaited :one
-- Reports whether another session waits for the lock in the server's queue, or has
-- a ticket with a number lower than below.
SELECT EXISTS (
    SELECT
    FROM pg_catalog.pg_locks k
    WHERE (k.locktype, k.mode, k.database) OPERATOR(pg_catalog.=) ('advisory', 'ExclusiveLock',
            (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
        AND ((k.objsubid, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint)) OPERATOR(pg_catalog.=) (1, @key::bigint)
                AND NOT k.granted
            OR (k.objsubid, pg_catalog.int8and(pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), -262144))
                    OPERATOR(pg_catalog.=) (2, @hash::bigint)
                AND pg_catalog.int8and(k.objid::bigint, 262143) OPERATOR(pg_catalog.>) 0
                AND pg_catalog.int8and(k.objid::bigint, 262143) OPERATOR(pg_catalog.<) @below::bigint AND k.granted)
)::boolean AS awaited;

-- name: CancelBackend :one
-- Cancels the statement of another of this client's sessions. See EndBackend
-- for started.
SELECT COALESCE(pg_catalog.bool_or(pg_catalog.pg_cancel_backend(b.pid)), false)::boolean AS cancelled
FROM pg_catalog.pg_stat_get_activity(@pid::integer) b
WHERE (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.backend_start))::bigint OPERATOR(pg_catalog.=) @started::bigint;

-- name: CancelWait :one
-- Cancels the wait for a lock of another of our sessions, if it is waiting.
SELECT COALESCE(pg_catalog.bool_or(pg_catalog.pg_cancel_backend(k.pid)), false)::boolean AS cancelled
FROM pg_catalog.pg_locks k
WHERE (k.pid, k.locktype) OPERATOR(pg_catalog.=) (@pid::integer, 'advisory') AND NOT k.granted;
