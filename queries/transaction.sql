-- The locks of a transaction, which its end frees. They are in the same space as
-- the locks of sessions, and the two exclude each other.

-- name: TryAcquireTx :one
-- Takes the lock for the rest of the transaction, if it is free. The answer is 0, or
-- the fence if one was asked for, or -1, -2, -3, -5 or -7 as TryAcquireWith and Mark
-- have them.
SELECT (CASE
    WHEN pg_catalog.current_setting('crdb_version', true) IS NOT NULL
        OR pg_catalog.current_setting('yb_silence_advisory_locks_not_supported_error', true) OPERATOR(pg_catalog.=) 'on' THEN -5
    WHEN pg_catalog.pg_is_in_recovery() THEN -2
    WHEN @fence::boolean AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN -3
    WHEN @fence AND pg_catalog.textregexeq(pg_catalog.current_setting('swanlock.fence_offset', true), '^[0-9]{0,18}$') IS FALSE THEN -7
    WHEN CASE WHEN @shared::boolean THEN pg_catalog.pg_try_advisory_xact_lock_shared(@key::bigint) ELSE pg_catalog.pg_try_advisory_xact_lock(@key) END
    THEN CASE
        WHEN NOT @fence THEN 0
        WHEN pg_catalog.pg_logical_emit_message(true, 'swanlock', ''::varchar) IS NOT NULL
        THEN pg_catalog.int8pl(pg_catalog.pg_current_xact_id()::varchar::bigint, COALESCE(
            CASE WHEN pg_catalog.current_setting('swanlock.fence_offset', true) OPERATOR(pg_catalog.<>) ''
                THEN pg_catalog.current_setting('swanlock.fence_offset', true)::bigint END, 0))
    END
    ELSE -1
END)::bigint AS answer;

-- name: AcquireTx :one
-- Waits for the lock for slice (milliseconds) at most, and fails with the SQLSTATE
-- 55P03 then. Otherwise it answers what TryAcquireTx does, after which it follows:
-- so it looks for less. The transaction may have its id since then, by a wait that was
-- cancelled after its grant. The lock_timeout of the transaction is put back.
SELECT (CASE
    WHEN @fence::boolean AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN -3
    WHEN pg_catalog.set_config('lock_timeout', @slice::varchar, true) IS NULL THEN -1
    WHEN CASE WHEN @shared::boolean THEN pg_catalog.pg_advisory_xact_lock_shared(@key::bigint) IS NOT NULL
        ELSE pg_catalog.pg_advisory_xact_lock(@key) IS NOT NULL END
        AND pg_catalog.set_config('lock_timeout', s.before, true) IS NOT NULL
    THEN CASE
        WHEN NOT @fence THEN 0
        WHEN pg_catalog.pg_logical_emit_message(true, 'swanlock', ''::varchar) IS NOT NULL
        THEN pg_catalog.int8pl(pg_catalog.pg_current_xact_id()::varchar::bigint, COALESCE(
            CASE WHEN pg_catalog.current_setting('swanlock.fence_offset', true) OPERATOR(pg_catalog.<>) ''
                THEN pg_catalog.current_setting('swanlock.fence_offset', true)::bigint END, 0))
    END
    ELSE -1
END)::bigint AS answer
FROM (SELECT pg_catalog.current_setting('lock_timeout')::varchar AS before OFFSET 0) s;

-- name: DeadlockTimeout :one
SELECT (1000 OPERATOR(pg_catalog.*) extract(epoch FROM CAST(pg_catalog.current_setting('deadlock_timeout') AS interval)))::bigint AS ms;

-- name: ReadOnly :one
-- Reports whether the transaction is read-only, so that no row of the audit can be
-- written in it. It is sent where the driver says that a transaction is open.
SELECT (pg_catalog.current_setting('transaction_read_only') OPERATOR(pg_catalog.=) 'on')::boolean AS read_only;
