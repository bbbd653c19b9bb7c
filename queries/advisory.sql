-- The statements of a lock's life. Each is one round trip, and returns one row
-- that says which backend answered: behind a transaction-mode pooler that may
-- be another one than granted the lock.
--
-- In all of these files every function, operator, relation and type is named by its
-- schema, since search_path may put somebody else's before PostgreSQL's own
-- (CVE-2018-1058). What the grammar itself looks up in pg_catalog may stand alone:
-- types that are keywords (bigint, integer, boolean, varchar: so none is text),
-- EXTRACT, COALESCE, GREATEST, LEAST. IN, NULLIF, BETWEEN, LIKE, IS DISTINCT FROM
-- and CASE with an operand look their operators up in search_path and cannot be
-- told another, so none is used. To compare, there is OPERATOR(pg_catalog.=), of
-- whole rows where there is much to compare, and to reckon, there are the functions
-- behind the operators (int8and): all of OPERATOR() binds equally strongly.
-- internal/sqlnames checks all that. The audit's table is public.lock_audit here; the
-- schema is changed to the one that has it before the statement is sent.
--
-- xact tells transactions apart: it is when the statement's own began, in
-- microseconds. Of two statements that follow each other, the second is in no
-- transaction of the first's if they differ, and if nobody else could send in
-- between, then neither is in one that lasts longer than itself. PostgreSQL has no
-- function that says so of one statement. witness is the setting swanlock.lease, the
-- number of the last change that made the lease longer: a rollback of that change
-- takes it along, and unlike the lease's own settings no SET LOCAL hides it.

-- name: Mark :one
-- Makes this backend the session's, which the statements that take locks ask for:
-- a setting says whose it is. The answer is 0, or -2: a standby, which a backend
-- does not become later, -4: it has locks and the mark of another session, before,
-- which is left there (instead says which may be replaced all the same), -5: an
-- engine that grants every advisory lock to everybody: CockroachDB, and YugabyteDB
-- if told to. before is '' if there was no mark. started is when the backend was, in
-- microseconds since 1970, and schema, quoted, the first of the search_path that
-- has a lock_audit which is not temporary, or ''.
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
-- Ends a session: its own, or another of this client's that cannot be spoken to
-- any more. The process that has its number by now is another one's if it was not
-- started then.
SELECT COALESCE(pg_catalog.bool_or(pg_catalog.pg_terminate_backend(b.pid)), false)::boolean AS ended
FROM pg_catalog.pg_stat_get_activity(@pid::integer) b
WHERE (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.backend_start))::bigint OPERATOR(pg_catalog.=) @started::bigint;

-- name: EndWhenIdle :one
-- Has the server end this session at once when it is idle, for a role that may not
-- call pg_terminate_backend (PostgreSQL 14+).
SELECT pg_catalog.textcat(
    pg_catalog.set_config('idle_session_timeout', '1', false),
    pg_catalog.set_config('idle_in_transaction_session_timeout', '1', false))::varchar AS lease;

-- name: TryAcquire :one
-- Takes the lock if it is free: the common case, and the fewest arguments and
-- columns. The answer is the backend, or -1: held elsewhere, -4: the backend is
-- not marked as this session's. It has no sub-select, which would cost its share
-- even where it is not run. All numbers are as wide as database/sql's, which would
-- write out any other, and read it again.
SELECT (CASE
    WHEN (pg_catalog.current_setting('swanlock.session', true) OPERATOR(pg_catalog.=) @session::varchar) IS NOT TRUE THEN -4
    WHEN pg_catalog.pg_try_advisory_lock(@key::bigint) THEN pg_catalog.pg_backend_pid()
    ELSE -1
END)::bigint AS pid;

-- name: TryAcquireWith :one
-- As TryAcquire, as a reader, with a fence, with a lease. The answer is 0, or the
-- fence if one was asked for, and -3 if it was asked for in a transaction that
-- has its id already, older than this grant. CASE fixes the order of the calls:
-- no lock is taken but by the last, no fence before it. A transaction that has
-- an id but wrote nothing is not flushed at its commit, and a crash would let its
-- id be given again: so it writes a message. To each fence swanlock.fence_offset is
-- added, a setting of the database's (docs/fences.md): -7 if it is no number. The inner select is a step of its
-- own, and first, because it calls volatile functions. gate is the hash of
-- the line that this try does not overtake (see line.sql), or 0; it is locked until the
-- transaction ends, so it is for sessions without one. idle is ''
-- where the server has no idle_session_timeout (before PostgreSQL 14). temporary
-- says that the lease ends with the transaction, as what the settings are now may be
-- a SET LOCAL: the caller's own are not known to be the ones that it would replace. They
-- are, if that is sure, or they are the ones of home (idle/idle_in_transaction) in
-- another transaction than marked, or a lease of ours that a rollback has
-- brought back, as the witness is not gen.
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
-- Asks the server whether this session still holds the lock, and sets the
-- lease again: a rollback since may have taken it back.
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
-- Frees the lock on the backend that granted it, and on no other. The answer is
-- the backend, negative if it has freed nothing.
SELECT (CASE
    WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) @pid::bigint THEN pg_catalog.int4um(pg_catalog.pg_backend_pid())
    WHEN pg_catalog.pg_advisory_unlock(@key::bigint) THEN pg_catalog.pg_backend_pid()
    ELSE pg_catalog.int4um(pg_catalog.pg_backend_pid())
END)::bigint AS pid;

-- name: ReleaseWith :one
-- As Release, of a reader's lock too, and puts back the settings that the lease
-- had changed. gen is the witness of that, '' if the lease does not get longer.
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
-- Says what the settings are and whose, and then sets those that are not '', for the
-- session or for the transaction, and gen as the witness.
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
-- Unlocks what a try that failed may have taken all the same. It asks first,
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
-- Ends the backend that granted a lock and cannot be spoken to any more, if it
-- still holds the lock. Should it be the one that gets this, it unlocks: its end
-- would take the way to the others with it.
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
