-- The statements of a lock's life that also write a row of lock_audit. The
-- exclusive intervals of a key never overlap: acquired_at is read after the
-- grant, and released_at before the unlock.

-- name: TryAcquireAudited :one
-- TryAcquireWith with a row. An exclusive lock has a fence even if none was
-- asked for, except in a transaction that has its id already. backend and
-- started (here in seconds since 1970) are those of the backend that Mark has
-- marked; the answer is -4 from any other. dead says that the key has open rows
-- of holders that must be dead, since this lock was granted: CloseDead is to
-- close them. A reader's grant proves that of writers only. The answer -6 says
-- that the texts are not ASCII, and that the session's encoding is not the
-- UTF-8 that we send.
WITH t AS MATERIALIZED (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        (CASE
            WHEN @fence::boolean AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN -3
            WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) @backend::integer
                OR (pg_catalog.current_setting('swanlock.session', true) OPERATOR(pg_catalog.=) @session::varchar) IS NOT TRUE THEN -4
            WHEN NOT @shared::boolean AND pg_catalog.textregexeq(pg_catalog.current_setting('swanlock.fence_offset', true), '^[0-9]{0,18}$') IS FALSE THEN -7
            WHEN pg_catalog.current_setting('client_encoding') OPERATOR(pg_catalog.<>) 'UTF8'
                AND pg_catalog.octet_length(pg_catalog.convert_to(pg_catalog.textcat(@target::varchar, @owner::varchar), 'UTF8'))
                    OPERATOR(pg_catalog.<>) pg_catalog.char_length(pg_catalog.textcat(@target, @owner)) THEN -6
            WHEN @line::bigint OPERATOR(pg_catalog.<>) 0 AND NOT pg_catalog.pg_try_advisory_xact_lock(
                pg_catalog.int8shr(@line, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(@line, 32), 32)::integer) THEN -1
            WHEN CASE WHEN @shared::boolean THEN pg_catalog.pg_try_advisory_lock_shared(@key::bigint) ELSE pg_catalog.pg_try_advisory_lock(@key) END
            THEN CASE WHEN @shared OR pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN 0
                ELSE pg_catalog.int8pl(pg_catalog.pg_current_xact_id()::varchar::bigint, COALESCE(
                    CASE WHEN pg_catalog.current_setting('swanlock.fence_offset', true) OPERATOR(pg_catalog.<>) ''
                        THEN pg_catalog.current_setting('swanlock.fence_offset', true)::bigint END, 0)) END
            ELSE -1
        END)::bigint AS answer,
        (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact,
        COALESCE(pg_catalog.current_setting('swanlock.lease', true), '')::varchar AS witness,
        COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
        pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction
), l AS MATERIALIZED (
    SELECT
        t.pid, t.idle, t.idle_in_transaction, t.xact, t.witness, t.answer,
        (@lease::varchar OPERATOR(pg_catalog.<>) '' AND NOT (@sure::boolean
            OR t.xact OPERATOR(pg_catalog.<>) @marked::bigint
                AND pg_catalog.textcat(t.idle, pg_catalog.textcat('/', t.idle_in_transaction)) OPERATOR(pg_catalog.=) @home::varchar
            OR @gen::varchar OPERATOR(pg_catalog.<>) '' AND t.witness OPERATOR(pg_catalog.<>) @gen))::boolean AS temporary
    FROM t
), row AS (
    INSERT INTO public.lock_audit (target, key, owner, ttl_ms, mode, fence, backend_pid, backend_start, client_addr, acquired_at, refreshed_at)
    SELECT @target::varchar, @key::bigint, @owner::varchar, @ttl_ms::bigint, CASE WHEN @shared THEN 'shared' ELSE 'exclusive' END,
        CASE WHEN g.answer OPERATOR(pg_catalog.>) 0 THEN g.answer END, g.pid, pg_catalog.to_timestamp(@started::double precision),
        pg_catalog.inet_client_addr(), g.granted_at, g.granted_at
    FROM (SELECT l.pid, l.answer, pg_catalog.clock_timestamp() AS granted_at FROM l WHERE l.answer OPERATOR(pg_catalog.>=) 0) g
    RETURNING id
)
SELECT
    l.pid,
    l.answer,
    COALESCE(row.id, 0)::bigint AS audit_id,
    (l.answer OPERATOR(pg_catalog.>=) 0 AND EXISTS (
        SELECT FROM public.lock_audit o
        WHERE o.key OPERATOR(pg_catalog.=) @key::bigint AND o.released_at IS NULL AND (NOT @shared OR o.mode OPERATOR(pg_catalog.=) 'exclusive')
    ))::boolean AS dead,
    l.idle,
    l.idle_in_transaction,
    l.xact,
    l.witness,
    (l.answer OPERATOR(pg_catalog.>=) 0 AND l.temporary)::boolean AS temporary,
    (CASE WHEN l.answer OPERATOR(pg_catalog.>=) 0 AND @lease::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.textcat(
        CASE WHEN l.idle OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @lease, l.temporary) ELSE '' END,
        pg_catalog.set_config('idle_in_transaction_session_timeout', @lease, l.temporary))
    ELSE '' END)::varchar AS lease
FROM l LEFT JOIN row ON true;

-- name: CloseDead :exec
-- Closes the rows that grants have proven to be over. The grants' own rows are
-- granted, and their locks are still held. The rows are the open ones of the same
-- key that are older; if a reader was granted, only the exclusive ones. Each
-- interval ends at this grant at the latest, and where the next interval began,
-- if that was sooner (a row may have been written too late for the snapshot of
-- that next grant). If a reader was granted, it ends at the last proof, since
-- another reader may have been granted before. A row that another session is
-- closing, perhaps in a long transaction, is not waited for. No interval ends
-- before it began, even if the clock was set back.
UPDATE public.lock_audit a SET
    released_at = GREATEST(a.acquired_at, CASE WHEN g.mode OPERATOR(pg_catalog.=) 'shared' THEN a.refreshed_at ELSE LEAST(g.acquired_at, (
        SELECT pg_catalog.min(n.acquired_at) FROM public.lock_audit n
        WHERE n.key OPERATOR(pg_catalog.=) a.key AND n.acquired_at OPERATOR(pg_catalog.>) a.acquired_at
            AND (n.mode OPERATOR(pg_catalog.=) 'exclusive' OR a.mode OPERATOR(pg_catalog.=) 'exclusive'))) END),
    end_reason = CASE
        WHEN a.ttl_ms OPERATOR(pg_catalog.>) 0
            AND (a.refreshed_at OPERATOR(pg_catalog.+) (a.ttl_ms OPERATOR(pg_catalog.*) interval '1 millisecond')) OPERATOR(pg_catalog.<=) g.acquired_at
        THEN 'expired' ELSE 'killed'
    END
FROM public.lock_audit g, LATERAL (
    SELECT o.id FROM public.lock_audit o
    WHERE o.key OPERATOR(pg_catalog.=) g.key AND o.id OPERATOR(pg_catalog.<) g.id AND o.released_at IS NULL
        AND (g.mode OPERATOR(pg_catalog.=) 'exclusive' OR o.mode OPERATOR(pg_catalog.=) 'exclusive')
    FOR UPDATE SKIP LOCKED
) o
WHERE g.id OPERATOR(pg_catalog.=) ANY (CAST(@granted::varchar AS bigint[])) AND a.id OPERATOR(pg_catalog.=) o.id;

-- name: RefreshAudited :one
-- Refresh with a row. If the lock is found lost, its interval ends at
-- refreshed_at, when it was last proven.
WITH h AS MATERIALIZED (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        EXISTS (
            SELECT FROM pg_catalog.pg_locks k
            WHERE (k.pid, k.locktype, k.objsubid, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint), k.mode)
                OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1, @key::bigint,
                    CASE WHEN @shared::boolean THEN 'ShareLock' ELSE 'ExclusiveLock' END) AND k.granted
        )::boolean AS held
), row AS (
    UPDATE public.lock_audit a SET
        refreshed_at = CASE WHEN h.held THEN GREATEST(a.refreshed_at, pg_catalog.clock_timestamp()) ELSE a.refreshed_at END,
        released_at = CASE WHEN h.held THEN NULL ELSE a.refreshed_at END,
        end_reason = CASE WHEN h.held THEN NULL ELSE 'lost' END
    FROM h
    WHERE a.id OPERATOR(pg_catalog.=) @audit_id::bigint AND a.released_at IS NULL
)
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
FROM h;

-- name: ReleaseAudited :one
-- Release with a row, which is closed first, so that the interval ends before
-- the next begins.
WITH row AS (
    UPDATE public.lock_audit SET released_at = GREATEST(refreshed_at, pg_catalog.clock_timestamp()), end_reason = @end_reason::varchar
    WHERE id OPERATOR(pg_catalog.=) @audit_id::bigint AND released_at IS NULL
        AND pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer
    RETURNING id
), closed AS MATERIALIZED (
    SELECT pg_catalog.count(*) AS n FROM row
), r AS MATERIALIZED (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid AS same,
        (CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid THEN
            CASE WHEN @shared::boolean THEN pg_catalog.pg_advisory_unlock_shared(@key::bigint) ELSE pg_catalog.pg_advisory_unlock(@key) END
        ELSE false END)::boolean AS released
    FROM closed
)
SELECT
    r.pid,
    r.released,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.transaction_timestamp()))::bigint AS xact,
    (CASE WHEN r.same THEN pg_catalog.textcat(pg_catalog.textcat(
        CASE WHEN @idle::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @idle, false) ELSE '' END,
        CASE WHEN @idle_in_transaction::varchar OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END),
        CASE WHEN @gen::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('swanlock.lease', @gen, false) ELSE '' END)
    ELSE '' END)::varchar AS lease
FROM r;

-- name: AuditLost :exec
-- Corrects the row of a lock whose release found it gone.
UPDATE public.lock_audit SET released_at = refreshed_at, end_reason = 'lost'
WHERE id OPERATOR(pg_catalog.=) @audit_id::bigint AND end_reason OPERATOR(pg_catalog.=) 'released';

-- name: AuditReleased :exec
-- Closes the row of a lock whose ReleaseAudited has failed, and that was
-- unlocked without its row then. at is when that unlock began, in microseconds
-- since 1970. The interval ends where the next begins, at the latest. The row
-- may be closed already, by the next holder's CloseDead, and is corrected then.
UPDATE public.lock_audit a SET
    released_at = GREATEST(a.refreshed_at, LEAST(a.released_at,
        pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@at::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'), (
        SELECT pg_catalog.min(n.acquired_at) FROM public.lock_audit n
        WHERE n.key OPERATOR(pg_catalog.=) a.key AND n.id OPERATOR(pg_catalog.>) a.id
            AND (n.mode OPERATOR(pg_catalog.=) 'exclusive' OR a.mode OPERATOR(pg_catalog.=) 'exclusive')))),
    end_reason = @end_reason::varchar
WHERE a.id OPERATOR(pg_catalog.=) @audit_id::bigint AND (a.released_at IS NULL OR a.end_reason OPERATOR(pg_catalog.=) 'killed');
