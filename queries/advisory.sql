-- The statements of a lock's life. Each is one round trip, and returns one row
-- that says which backend answered: behind a transaction-mode pooler that may
-- be another one than granted the lock.

-- name: Mark :one
-- Makes this backend the session's, which the statements that take locks ask for:
-- a setting says whose it is. The answer is 0, or -2: a standby, which a backend
-- does not become later, -4: it has locks on behalf of another session of a
-- client: a pooler gave both the same. started is when the backend was, in
-- microseconds since 1970, for the audit.
SELECT
    pg_backend_pid()::integer AS pid,
    COALESCE((SELECT extract(epoch FROM b.backend_start) * 1000000 FROM pg_stat_get_activity(pg_backend_pid()) b), 0)::bigint AS started,
    (CASE
        WHEN pg_is_in_recovery() THEN -2
        WHEN COALESCE(current_setting('swanlock.session', true), '') NOT IN ('', @session::text) AND EXISTS (
            SELECT FROM pg_catalog.pg_locks k WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.granted
        ) THEN -4
        WHEN set_config('swanlock.session', @session, false) IS NOT NULL THEN 0
        ELSE -4
    END)::bigint AS answer;

-- name: TryAcquire :one
-- Takes the lock if it is free: the common case, and the fewest arguments and
-- columns. The answer is the backend, or -1: held elsewhere, -4: the backend is
-- not marked as this session's. It has no sub-select, which would cost its share
-- even where it is not run. All numbers are as wide as database/sql's, which would
-- write out any other, and read it again.
SELECT (CASE
    WHEN current_setting('swanlock.session', true) IS DISTINCT FROM @session::text THEN -4
    WHEN pg_try_advisory_lock(@key::bigint) THEN pg_backend_pid()
    ELSE -1
END)::bigint AS pid;

-- name: TryAcquireWith :one
-- As TryAcquire, as a reader, with a fence, with a lease. The answer is 0, or the
-- fence if one was asked for, and -3 if it was asked for in a transaction that
-- has its id already, older than this grant. CASE fixes the order of the calls:
-- no lock is taken but by the last, no fence before it. A transaction that has
-- an id but wrote nothing is not flushed at its commit, and a crash would let its
-- id be given again: so it writes a message. The inner select is a step of its
-- own, and first, because it calls volatile functions. gate is where the line is
-- that this try does not overtake (see line.sql), or 0; it is locked until the
-- transaction ends, so it is for sessions without one. idle is ''
-- where the server has no idle_session_timeout (before PostgreSQL 14).
SELECT
    l.pid,
    l.answer,
    l.idle,
    l.idle_in_transaction,
    (CASE WHEN l.answer >= 0 AND @lease::text <> '' THEN
        CASE WHEN l.idle <> '' THEN set_config('idle_session_timeout', @lease, false) ELSE '' END
        || set_config('idle_in_transaction_session_timeout', @lease, false)
    ELSE '' END)::text AS lease
FROM (
    SELECT
        pg_backend_pid()::integer AS pid,
        COALESCE(current_setting('idle_session_timeout', true), '')::text AS idle,
        current_setting('idle_in_transaction_session_timeout')::text AS idle_in_transaction,
        (CASE
            WHEN @fence::boolean AND pg_current_xact_id_if_assigned() IS NOT NULL THEN -3
            WHEN current_setting('swanlock.session', true) IS DISTINCT FROM @session::text THEN -4
            WHEN @gate::integer <> 0 AND NOT pg_try_advisory_xact_lock(@gate, 0) THEN -1
            WHEN CASE WHEN @shared::boolean THEN pg_try_advisory_lock_shared(@key::bigint) ELSE pg_try_advisory_lock(@key) END
            THEN CASE
                WHEN NOT @fence THEN 0
                WHEN pg_logical_emit_message(true, 'swanlock', ''::text) IS NOT NULL THEN pg_current_xact_id()::text::bigint
            END
            ELSE -1
        END)::bigint AS answer
) l;

-- name: Refresh :one
-- Asks the server whether this session still holds the lock, and sets the
-- lease again: a rollback since may have taken it back.
SELECT
    h.pid,
    h.held,
    (CASE WHEN h.held THEN
        CASE WHEN @idle::text <> '' THEN set_config('idle_session_timeout', @idle, false) ELSE '' END
        || CASE WHEN @idle_in_transaction::text <> '' THEN set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END
    ELSE '' END)::text AS lease
FROM (
    SELECT
        pg_backend_pid()::integer AS pid,
        EXISTS (
            SELECT FROM pg_catalog.pg_locks k
            WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.objsubid = 1 AND k.granted
                AND k.classid::bigint = ((@key::bigint >> 32) & 4294967295) AND k.objid::bigint = (@key & 4294967295)
                AND k.mode = CASE WHEN @shared::boolean THEN 'ShareLock' ELSE 'ExclusiveLock' END
        )::boolean AS held
) h;

-- name: Release :one
-- Frees the lock on the backend that granted it, and on no other. The answer is
-- the backend, negative if it has freed nothing.
SELECT (CASE
    WHEN pg_backend_pid() <> @pid::bigint THEN -pg_backend_pid()
    WHEN pg_advisory_unlock(@key::bigint) THEN pg_backend_pid()
    ELSE -pg_backend_pid()
END)::bigint AS pid;

-- name: ReleaseWith :one
-- As Release, of a reader's lock too, and puts back the settings that the lease
-- had changed.
SELECT
    pg_backend_pid()::integer AS pid,
    (CASE WHEN pg_backend_pid() <> @pid::integer THEN false
        WHEN @shared::boolean THEN pg_advisory_unlock_shared(@key::bigint)
        ELSE pg_advisory_unlock(@key)
    END)::boolean AS released,
    (CASE WHEN pg_backend_pid() = @pid AND @idle::text <> '' THEN set_config('idle_session_timeout', @idle, false) ELSE '' END
    || CASE WHEN pg_backend_pid() = @pid AND @idle_in_transaction::text <> '' THEN set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END
    )::text AS lease;

-- name: Undo :one
-- Unlocks what a try that failed may have taken all the same. It asks first,
-- so that the server does not warn of a lock that is not there.
SELECT (CASE
    WHEN NOT EXISTS (
        SELECT FROM pg_catalog.pg_locks k
        WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.objsubid = 1 AND k.granted
            AND k.classid::bigint = ((@key::bigint >> 32) & 4294967295) AND k.objid::bigint = (@key & 4294967295)
            AND k.mode = CASE WHEN @shared::boolean THEN 'ShareLock' ELSE 'ExclusiveLock' END
    ) THEN false
    WHEN @shared THEN pg_advisory_unlock_shared(@key)
    ELSE pg_advisory_unlock(@key)
END)::boolean AS undone;

-- name: Terminate :one
-- Ends the backend that granted a lock and cannot be spoken to any more, if it
-- still holds the lock. Should it be the one that gets this, it unlocks: its end
-- would take the way to the others with it.
SELECT COALESCE(bool_or(CASE
    WHEN k.pid <> pg_backend_pid() THEN pg_terminate_backend(k.pid)
    WHEN @shared::boolean THEN pg_advisory_unlock_shared(@key::bigint)
    ELSE pg_advisory_unlock(@key)
END), false)::boolean AS terminated
FROM pg_catalog.pg_locks k
WHERE k.locktype = 'advisory' AND k.pid = @pid::integer AND k.objsubid = 1 AND k.granted
    AND k.classid::bigint = ((@key::bigint >> 32) & 4294967295) AND k.objid::bigint = (@key & 4294967295)
    AND k.mode = CASE WHEN @shared THEN 'ShareLock' ELSE 'ExclusiveLock' END;
