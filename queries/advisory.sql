-- The statements of a lock's life. Each is one round trip, and returns one row
-- that says which backend answered: behind a pooler in transaction mode that
-- may not be the one that granted the lock.
--
-- In all of these files every function, operator, relation and type is named
-- with its schema, since search_path may put an object of another user before
-- PostgreSQL's own (CVE-2018-1058). Names that the grammar itself looks up in
-- pg_catalog need no schema: types that are keywords (bigint, integer, boolean,
-- varchar; text is none), EXTRACT, COALESCE, GREATEST, LEAST. IN, NULLIF,
-- BETWEEN, LIKE, IS DISTINCT FROM and CASE with an operand are not used,
-- because they look up their operators in search_path, and no other schema can
-- be given. Values are compared with OPERATOR(pg_catalog.=), as whole rows
-- where there are many. Arithmetic uses the functions behind the operators,
-- such as int8and, because all operators written as OPERATOR() have the same
-- precedence. internal/sqlnames checks all that. The audit's table is
-- public.lock_audit here; the schema is replaced by that of the actual table
-- before a statement is sent.
--
-- xact tells transactions apart: it is the time when the statement's
-- transaction began, in microseconds since 1970. If it differs between two
-- statements, they were in different transactions. If nothing else could be
-- sent between the two, then neither was in a transaction of the caller's.
-- PostgreSQL has no function that says so of one statement. witness is the
-- setting swanlock.lease, the number of the last change that made the lease
-- longer. A rollback of that change takes the number back too, and no SET LOCAL
-- hides it, as one may hide the lease's own settings.

-- name: Mark :one
-- Marks this backend with the session's token, in the setting swanlock.session.
-- The statements that take locks look for that mark. The answer is one of
--    0: the backend is marked
--   -2: the server is a standby (a backend of a primary never becomes one of a standby)
--   -4: the backend has locks, and the mark of another session, which is left there
--       unless it is the parameter instead
--   -5: the engine grants every advisory lock to everybody: CockroachDB, and YugabyteDB
--       with a setting
-- before is the mark that was found, or ''. started is when the backend was
-- started, in microseconds since 1970, or 0 if it is not known. schema is the
-- first schema of the search_path that has a lock_audit that is not temporary,
-- quoted, or ''.
SELECT
    m.pid,
    COALESCE((
        SELECT 1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.backend_start)
        FROM pg_catalog.pg_stat_get_activity(m.pid) b
    ), 0)::bigint AS started,
    m.before,
    COALESCE((
        SELECT pg_catalog.quote_ident(n.nspname)
        FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
        WHERE c.relname OPERATOR(pg_catalog.=) 'lock_audit' AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
            AND pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname) IS NOT NULL
        ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname)
        LIMIT 1
    ), '')::varchar AS schema,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact,
    COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
    pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction,
    (CASE
        WHEN pg_catalog.current_setting('crdb_version', true) IS NOT NULL
            OR pg_catalog.current_setting('yb_silence_advisory_locks_not_supported_error', true) OPERATOR(pg_catalog.=) 'on' THEN -5
        WHEN pg_catalog.pg_is_in_recovery() THEN -2
        WHEN m.before OPERATOR(pg_catalog.<>) '' AND m.before OPERATOR(pg_catalog.<>) @session::varchar
            AND m.before OPERATOR(pg_catalog.<>) @instead::varchar
            AND EXISTS (
                SELECT FROM pg_catalog.pg_locks k
                WHERE (k.pid, k.locktype) OPERATOR(pg_catalog.=) (m.pid, 'advisory') AND k.granted
            ) THEN -4
        WHEN pg_catalog.set_config('swanlock.session', @session, false) IS NOT NULL THEN 0
        ELSE -4
    END)::bigint AS answer
FROM (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        COALESCE(pg_catalog.current_setting('swanlock.session', true), '')::varchar AS before
    OFFSET 0
) m;

-- name: EndBackend :one
-- Ends a session: the one that sends this, or another one of this client's that
-- does not answer any more. The process id may belong to another session by
-- now: then its process was started at another time, and is left alone.
SELECT COALESCE(pg_catalog.bool_or(pg_catalog.pg_terminate_backend(b.pid)), false)::boolean AS ended
FROM pg_catalog.pg_stat_get_activity(@pid::integer) b
WHERE (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.backend_start))::bigint OPERATOR(pg_catalog.=) @started::bigint;

-- name: EndWhenIdle :one
-- Makes the server end this session as soon as it is idle. It is for a role
-- that may not call pg_terminate_backend (PostgreSQL 14+).
SELECT pg_catalog.textcat(
    pg_catalog.set_config('idle_session_timeout', '1', false),
    pg_catalog.set_config('idle_in_transaction_session_timeout', '1', false))::varchar AS lease;

-- name: TryAcquire :one
-- Takes the lock if it is free. This is the fast path, with the fewest
-- arguments and columns. The answer is the process id of the backend, or -1 if
-- the lock is held elsewhere, or -4 if the backend is not marked with this
-- session's token. There is no sub-select, since one costs time even where it
-- is not run. All numbers have 64 bits, as those of database/sql, which would
-- convert others to text and back.
SELECT (CASE
    WHEN (pg_catalog.current_setting('swanlock.session', true) OPERATOR(pg_catalog.=) @session::varchar) IS NOT TRUE THEN -4
    WHEN pg_catalog.pg_try_advisory_lock(@key::bigint) THEN pg_catalog.pg_backend_pid()
    ELSE -1
END)::bigint AS pid;

-- name: TryAcquireWith :one
-- TryAcquire with more: as a reader, with a fence, with a lease. The answer is
-- 0, or the fence if one was asked for, or one of
--   -1: the lock is held elsewhere
--   -3: a fence was asked for in a transaction that has its id already, which is older
--       than this grant
--   -4: the backend is not marked with this session's token
--   -7: swanlock.fence_offset is no number
-- CASE fixes the order of the calls: the lock is taken last, and the fence
-- after it. The fence is the transaction's id, plus swanlock.fence_offset, a
-- setting of the database's (docs/fences.md). A transaction that has an id and
-- has written nothing is not flushed at its commit, so that a crash could let
-- the id be given again: so it writes a message. The inner select runs first,
-- as a step of its own, because it calls volatile functions.
--
-- line is the hash of the line that this try does not overtake, or 0: if the
-- line's number 0 cannot be locked, there is a line (see line.sql). That lock
-- lasts until the transaction ends, so line is for sessions that are in no
-- transaction of the caller's.
--
-- idle is '' where the server has no idle_session_timeout (before PostgreSQL
-- 14). temporary says that the lease ends with the transaction. It does so if
-- the settings that the lease replaces may come from a SET LOCAL of the
-- caller's. They do not if sure says so, or if they are home
-- ('idle/idle_in_transaction') and this is another transaction than marked, or
-- if gen is not '' and not the witness: then they are a lease of ours that a
-- rollback has brought back.
SELECT
    l.pid,
    l.answer,
    l.idle,
    l.idle_in_transaction,
    l.xact,
    l.witness,
    (l.answer OPERATOR(pg_catalog.>=) 0 AND l.temporary)::boolean AS temporary,
    (CASE WHEN l.answer OPERATOR(pg_catalog.>=) 0 AND @lease::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.textcat(
        CASE WHEN l.idle OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @lease, l.temporary) ELSE '' END,
        pg_catalog.set_config('idle_in_transaction_session_timeout', @lease, l.temporary))
    ELSE '' END)::varchar AS lease
FROM (
    SELECT
        t.pid, t.idle, t.idle_in_transaction, t.xact, t.witness, t.answer,
        (@lease::varchar OPERATOR(pg_catalog.<>) '' AND NOT (@sure::boolean
            OR t.xact OPERATOR(pg_catalog.<>) @marked::bigint
                AND pg_catalog.textcat(t.idle, pg_catalog.textcat('/', t.idle_in_transaction)) OPERATOR(pg_catalog.=) @home::varchar
            OR @gen::varchar OPERATOR(pg_catalog.<>) '' AND t.witness OPERATOR(pg_catalog.<>) @gen))::boolean AS temporary
    FROM (SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
        pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction,
        (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact,
        COALESCE(pg_catalog.current_setting('swanlock.lease', true), '')::varchar AS witness,
        (CASE
            WHEN @fence::boolean AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN -3
            WHEN (pg_catalog.current_setting('swanlock.session', true) OPERATOR(pg_catalog.=) @session::varchar) IS NOT TRUE THEN -4
            WHEN @fence AND pg_catalog.textregexeq(pg_catalog.current_setting('swanlock.fence_offset', true), '^[0-9]{0,18}$') IS FALSE THEN -7
            WHEN @line::bigint OPERATOR(pg_catalog.<>) 0 AND NOT pg_catalog.pg_try_advisory_xact_lock(
                pg_catalog.int8shr(@line, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(@line, 32), 32)::integer) THEN -1
            WHEN CASE WHEN @shared::boolean THEN pg_catalog.pg_try_advisory_lock_shared(@key::bigint) ELSE pg_catalog.pg_try_advisory_lock(@key) END
            THEN CASE
                WHEN NOT @fence THEN 0
                WHEN pg_catalog.pg_logical_emit_message(true, 'swanlock', ''::varchar) IS NOT NULL
                THEN pg_catalog.int8pl(pg_catalog.pg_current_xact_id()::varchar::bigint, COALESCE(
                    CASE WHEN pg_catalog.current_setting('swanlock.fence_offset', true) OPERATOR(pg_catalog.<>) ''
                        THEN pg_catalog.current_setting('swanlock.fence_offset', true)::bigint END, 0))
            END
            ELSE -1
        END)::bigint AS answer
    ) t
) l;

-- name: Refresh :one
-- Reports whether this session still holds the lock, and sets the lease again,
-- since a rollback may have taken it back.
SELECT
    h.pid,
    h.held,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact,
    COALESCE(pg_catalog.current_setting('swanlock.lease', true), '')::varchar AS witness,
    (CASE WHEN h.held THEN pg_catalog.textcat(
        CASE WHEN @idle::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @idle, false) ELSE '' END,
        CASE WHEN @idle_in_transaction::varchar OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END)
    ELSE '' END)::varchar AS lease
FROM (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        EXISTS (
            SELECT FROM pg_catalog.pg_locks k
            WHERE (k.pid, k.locktype, k.objsubid, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), k.mode)
                OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1, @key::bigint,
                    CASE WHEN @shared::boolean THEN 'ShareLock' ELSE 'ExclusiveLock' END) AND k.granted
        )::boolean AS held
) h;

-- name: Release :one
-- Unlocks the lock on the backend that granted it, and on no other. The answer
-- is the process id of the backend, negative if it has unlocked nothing.
SELECT (CASE
    WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) @pid::bigint THEN pg_catalog.int4um(pg_catalog.pg_backend_pid())
    WHEN pg_catalog.pg_advisory_unlock(@key::bigint) THEN pg_catalog.pg_backend_pid()
    ELSE pg_catalog.int4um(pg_catalog.pg_backend_pid())
END)::bigint AS pid;

-- name: ReleaseWith :one
-- Release with more: of a reader's lock too, and with the settings that the
-- session is to have then. gen is the new witness, or '' if the lease does not
-- get longer.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    (CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) @pid::integer THEN false
        WHEN @shared::boolean THEN pg_catalog.pg_advisory_unlock_shared(@key::bigint)
        ELSE pg_catalog.pg_advisory_unlock(@key)
    END)::boolean AS released,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact,
    (CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid THEN pg_catalog.textcat(pg_catalog.textcat(
        CASE WHEN @idle::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @idle, false) ELSE '' END,
        CASE WHEN @idle_in_transaction::varchar OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END),
        CASE WHEN @gen::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('swanlock.lease', @gen, false) ELSE '' END)
    ELSE '' END)::varchar AS lease;

-- name: Lease :one
-- Returns the settings, and then sets those that are not '', for the
-- transaction alone if temporary is true, and gen as the witness.
SELECT
    s.pid,
    s.xact,
    s.witness,
    s.idle,
    s.idle_in_transaction,
    (CASE WHEN s.pid OPERATOR(pg_catalog.=) @pid::integer THEN pg_catalog.textcat(pg_catalog.textcat(
        CASE WHEN @set_idle::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @set_idle, @temporary::boolean) ELSE '' END,
        CASE WHEN @set_idle_in_transaction::varchar OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.set_config('idle_in_transaction_session_timeout', @set_idle_in_transaction, @temporary) ELSE '' END),
        CASE WHEN @gen::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('swanlock.lease', @gen, false) ELSE '' END)
    ELSE '' END)::varchar AS lease
FROM (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact,
        COALESCE(pg_catalog.current_setting('swanlock.lease', true), '')::varchar AS witness,
        COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
        pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction
    OFFSET 0
) s;

-- name: Undo :one
-- Unlocks a lock that a try may have taken although it failed. It looks first,
-- so that the server does not warn of a lock that is not there.
SELECT (CASE
    WHEN NOT EXISTS (
        SELECT FROM pg_catalog.pg_locks k
        WHERE (k.pid, k.locktype, k.objsubid, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), k.mode)
            OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1, @key::bigint,
                    CASE WHEN @shared::boolean THEN 'ShareLock' ELSE 'ExclusiveLock' END) AND k.granted
    ) THEN false
    WHEN @shared THEN pg_catalog.pg_advisory_unlock_shared(@key)
    ELSE pg_catalog.pg_advisory_unlock(@key)
END)::boolean AS undone;

-- name: Terminate :one
-- Ends the backend that granted a lock, if it still holds it, when a pooler is
-- in between and the backend may not get another statement of ours. If this
-- statement happens to reach that backend, it unlocks instead: to end the
-- backend would also end the connection through which the others are ended.
SELECT COALESCE(pg_catalog.bool_or(CASE
    WHEN k.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid() THEN pg_catalog.pg_terminate_backend(k.pid)
    WHEN @shared::boolean THEN pg_catalog.pg_advisory_unlock_shared(@key::bigint)
    ELSE pg_catalog.pg_advisory_unlock(@key)
END), false)::boolean AS terminated
FROM pg_catalog.pg_locks k
WHERE (k.pid, k.locktype, k.objsubid, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), k.mode)
    OPERATOR(pg_catalog.=) (@pid::integer, 'advisory', 1, @key::bigint,
                    CASE WHEN @shared THEN 'ShareLock' ELSE 'ExclusiveLock' END)
    AND k.granted;
