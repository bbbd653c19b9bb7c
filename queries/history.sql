-- What pginspect asks of the audit. Times are in microseconds since 1970; 0 is
-- none. A page begins after the last row of the page before, whose place in the
-- order is its time and its id: so a page costs the same wherever it is.

-- name: History :many
-- Returns a page of the rows that began from since on and before the place
-- (until, id), the newest first. target and owner are patterns of LIKE.
SELECT
    a.id::bigint AS id,
    a.target::varchar AS target,
    a.key::bigint AS key,
    a.owner::varchar AS owner,
    a.ttl_ms::bigint AS ttl_ms,
    (a.mode OPERATOR(pg_catalog.=) 'shared')::boolean AS shared,
    COALESCE(a.fence, 0)::bigint AS fence,
    a.backend_pid::integer AS pid,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.backend_start))::bigint AS started,
    COALESCE(pg_catalog.host(a.client_addr), '')::varchar AS client,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.acquired_at))::bigint AS acquired,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.refreshed_at))::bigint AS refreshed,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.released_at), 0)::bigint AS released,
    COALESCE(a.end_reason, '')::varchar AS end_reason,
    COALESCE(a.ended_by, '')::varchar AS ended_by,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.succeeded_at), 0)::bigint AS succeeded
FROM public.lock_audit a
WHERE a.acquired_at OPERATOR(pg_catalog.>=) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@since::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
    AND (a.acquired_at, a.id) OPERATOR(pg_catalog.<)
        ((pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@until::bigint OPERATOR(pg_catalog.*) interval '1 microsecond')), @id::bigint)
    AND pg_catalog.textlike(a.target, @target::varchar) AND pg_catalog.textlike(a.owner, @owner::varchar)
ORDER BY a.acquired_at DESC, a.id DESC
LIMIT @most::bigint;

-- name: HistoryOfKey :many
-- Is History for one key.
SELECT
    a.id::bigint AS id,
    a.target::varchar AS target,
    a.key::bigint AS key,
    a.owner::varchar AS owner,
    a.ttl_ms::bigint AS ttl_ms,
    (a.mode OPERATOR(pg_catalog.=) 'shared')::boolean AS shared,
    COALESCE(a.fence, 0)::bigint AS fence,
    a.backend_pid::integer AS pid,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.backend_start))::bigint AS started,
    COALESCE(pg_catalog.host(a.client_addr), '')::varchar AS client,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.acquired_at))::bigint AS acquired,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.refreshed_at))::bigint AS refreshed,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.released_at), 0)::bigint AS released,
    COALESCE(a.end_reason, '')::varchar AS end_reason,
    COALESCE(a.ended_by, '')::varchar AS ended_by,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.succeeded_at), 0)::bigint AS succeeded
FROM public.lock_audit a
WHERE a.key OPERATOR(pg_catalog.=) @key::bigint
    AND a.acquired_at OPERATOR(pg_catalog.>=) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@since::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
    AND a.acquired_at OPERATOR(pg_catalog.<=) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@until::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
    AND (a.acquired_at, a.id) OPERATOR(pg_catalog.<)
        ((pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@until::bigint OPERATOR(pg_catalog.*) interval '1 microsecond')), @id::bigint)
    AND pg_catalog.textlike(a.owner, @owner::varchar)
ORDER BY a.acquired_at DESC, a.id DESC
LIMIT @most::bigint;

-- name: HeldAt :many
-- Returns a page of the rows whose hold was under way at that time, by id. Each of
-- the three parts has an index: lock_audit_span has the holds that took more than
-- ten seconds, lock_audit_time finds the shorter ones by when they began, and
-- lock_audit_open has those that have not ended. They are a step of their own,
-- since a plan that combined them with the order by id would read the whole index
-- of that.
WITH h AS MATERIALIZED (
    SELECT e.id, e.target, e.key, e.owner, e.ttl_ms, e.mode, e.fence, e.backend_pid, e.backend_start, e.client_addr, e.acquired_at, e.refreshed_at, e.released_at, e.end_reason, e.ended_by, e.succeeded_at
    FROM public.lock_audit e
    WHERE (e.released_at OPERATOR(pg_catalog.-) e.acquired_at) OPERATOR(pg_catalog.>) interval '10 seconds'
        AND pg_catalog.tstzrange(e.acquired_at, e.released_at) OPERATOR(pg_catalog.@>)
            (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@at::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
    UNION ALL
    SELECT s.id, s.target, s.key, s.owner, s.ttl_ms, s.mode, s.fence, s.backend_pid, s.backend_start, s.client_addr, s.acquired_at, s.refreshed_at, s.released_at, s.end_reason, s.ended_by, s.succeeded_at
    FROM public.lock_audit s
    WHERE s.acquired_at OPERATOR(pg_catalog.<=) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@at OPERATOR(pg_catalog.*) interval '1 microsecond'))
        AND s.acquired_at OPERATOR(pg_catalog.>=) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+)
            (pg_catalog.int8mi(@at, 10000000) OPERATOR(pg_catalog.*) interval '1 microsecond'))
        AND s.released_at OPERATOR(pg_catalog.>) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@at OPERATOR(pg_catalog.*) interval '1 microsecond'))
        AND (s.released_at OPERATOR(pg_catalog.-) s.acquired_at) OPERATOR(pg_catalog.<=) interval '10 seconds'
    UNION ALL
    SELECT o.id, o.target, o.key, o.owner, o.ttl_ms, o.mode, o.fence, o.backend_pid, o.backend_start, o.client_addr, o.acquired_at, o.refreshed_at, o.released_at, o.end_reason, o.ended_by, o.succeeded_at
    FROM public.lock_audit o
    WHERE o.released_at IS NULL
        AND o.acquired_at OPERATOR(pg_catalog.<=) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@at OPERATOR(pg_catalog.*) interval '1 microsecond'))
)
SELECT
    a.id::bigint AS id,
    a.target::varchar AS target,
    a.key::bigint AS key,
    a.owner::varchar AS owner,
    a.ttl_ms::bigint AS ttl_ms,
    (a.mode OPERATOR(pg_catalog.=) 'shared')::boolean AS shared,
    COALESCE(a.fence, 0)::bigint AS fence,
    a.backend_pid::integer AS pid,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.backend_start))::bigint AS started,
    COALESCE(pg_catalog.host(a.client_addr), '')::varchar AS client,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.acquired_at))::bigint AS acquired,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.refreshed_at))::bigint AS refreshed,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.released_at), 0)::bigint AS released,
    COALESCE(a.end_reason, '')::varchar AS end_reason,
    COALESCE(a.ended_by, '')::varchar AS ended_by,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.succeeded_at), 0)::bigint AS succeeded
FROM h a
WHERE a.id OPERATOR(pg_catalog.>) @id::bigint
ORDER BY a.id
LIMIT @most::bigint;

-- name: PruneCount :one
-- Counts the rows that Prune will look at.
SELECT pg_catalog.count(*)::bigint AS n FROM public.lock_audit a
WHERE a.acquired_at OPERATOR(pg_catalog.<) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@before::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'));

-- name: PruneBatch :one
-- Looks at the next rows that began before that time, from the place (after, id)
-- on, and deletes those whose hold ended before it. Of the rows that nobody
-- closed it deletes those that were last proven before it and whose lock is no
-- longer held. The rows of locks that are held are not touched, so no acquire,
-- refresh or release waits for this; nor does this wait for a transaction that is
-- closing a row. A row that was closed since the look at it stays.
WITH batch AS MATERIALIZED (
    SELECT a.id, a.acquired_at, a.refreshed_at, a.released_at, a.key, a.backend_pid, a.xmax AS changer
    FROM public.lock_audit a
    WHERE a.acquired_at OPERATOR(pg_catalog.<) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@before::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
        AND (a.acquired_at, a.id) OPERATOR(pg_catalog.>)
            ((pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@after::bigint OPERATOR(pg_catalog.*) interval '1 microsecond')), @id::bigint)
    ORDER BY a.acquired_at, a.id
    LIMIT @most::bigint
), gone AS (
    DELETE FROM public.lock_audit
    WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT b.id FROM batch b
        WHERE b.released_at OPERATOR(pg_catalog.<) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@before OPERATOR(pg_catalog.*) interval '1 microsecond'))
            OR b.released_at IS NULL
                AND b.refreshed_at OPERATOR(pg_catalog.<) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@before OPERATOR(pg_catalog.*) interval '1 microsecond'))
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_locks k
                    WHERE (k.locktype, k.objsubid, k.pid, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint))
                        OPERATOR(pg_catalog.=) ('advisory', 1, b.backend_pid, b.key) AND k.granted
                )
                AND NOT EXISTS (
                    SELECT FROM pg_catalog.pg_locks k
                    WHERE k.transactionid OPERATOR(pg_catalog.=) b.changer AND k.granted
                )
    ))
        AND (released_at IS NULL OR released_at OPERATOR(pg_catalog.<) (pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@before OPERATOR(pg_catalog.*) interval '1 microsecond')))
    RETURNING id
)
SELECT
    (SELECT pg_catalog.count(*) FROM batch)::bigint AS looked,
    (SELECT pg_catalog.count(*) FROM gone)::bigint AS deleted,
    COALESCE((SELECT 1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.acquired_at) FROM batch b ORDER BY b.acquired_at DESC, b.id DESC LIMIT 1), 0)::bigint AS after,
    COALESCE((SELECT b.id FROM batch b ORDER BY b.acquired_at DESC, b.id DESC LIMIT 1), 0)::bigint AS id;

-- name: KillRows :many
-- Finds the open rows of a session's locks. It waits for no transaction of the
-- session's, which may have locked them.
SELECT a.id::bigint AS id FROM public.lock_audit a
WHERE a.released_at IS NULL AND a.backend_pid OPERATOR(pg_catalog.=) @pid::integer
    AND (@started::bigint OPERATOR(pg_catalog.=) 0 OR (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.backend_start))::bigint OPERATOR(pg_catalog.=) @started)
    AND a.key OPERATOR(pg_catalog.=) ANY (ARRAY(
        SELECT pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint) FROM pg_catalog.pg_locks k
        WHERE (k.locktype, k.objsubid, k.pid) OPERATOR(pg_catalog.=) ('advisory', 1, @pid) AND k.granted
    ));

-- name: KillMark :exec
-- Writes who ends a session into its open rows, before it is ended: the next
-- holder of a lock may close a row sooner than the one who ended the session. A
-- row that the session's own transaction has locked is left for KillClose.
UPDATE public.lock_audit SET ended_by = @by::varchar
WHERE id OPERATOR(pg_catalog.=) ANY (ARRAY(
    SELECT r.id FROM public.lock_audit r
    WHERE r.id OPERATOR(pg_catalog.=) ANY (CAST(@ids::varchar AS bigint[])) AND r.released_at IS NULL
    FOR UPDATE SKIP LOCKED
));

-- name: KillClose :execrows
-- Closes the rows of a session that was killed and is gone, or corrects what the
-- next holder has written. at is when its end was asked for: no later holder has
-- begun before. A lock that was released first keeps that, and nobody ended it.
UPDATE public.lock_audit a SET
    released_at = CASE WHEN a.end_reason OPERATOR(pg_catalog.=) 'released' THEN a.released_at ELSE
        GREATEST(a.refreshed_at, pg_catalog.to_timestamp(0) OPERATOR(pg_catalog.+) (@at::bigint OPERATOR(pg_catalog.*) interval '1 microsecond')) END,
    end_reason = CASE WHEN a.end_reason OPERATOR(pg_catalog.=) 'released' THEN 'released' ELSE 'killed' END,
    ended_by = CASE WHEN a.end_reason OPERATOR(pg_catalog.=) 'released' THEN NULL ELSE @by::varchar END
WHERE a.id OPERATOR(pg_catalog.=) ANY (CAST(@ids::varchar AS bigint[]));

-- name: KillUnmark :exec
-- Takes back what KillMark wrote: the session could not be ended. A row that says
-- killed may be of another who ended it.
UPDATE public.lock_audit SET ended_by = NULL
WHERE id OPERATOR(pg_catalog.=) ANY (CAST(@ids::varchar AS bigint[])) AND (end_reason OPERATOR(pg_catalog.=) 'killed') IS NOT TRUE;

-- name: LastSuccess :one
-- How long ago, in microseconds by the server's clock, the work under a key's lock
-- was last done: -1 if that is not known.
SELECT COALESCE((
    SELECT 1000000 OPERATOR(pg_catalog.*) extract(epoch FROM GREATEST(pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) a.succeeded_at, interval '0'))
    FROM public.lock_audit a
    WHERE a.key OPERATOR(pg_catalog.=) @key::bigint AND a.succeeded_at IS NOT NULL
    ORDER BY a.acquired_at DESC
    LIMIT 1
), -1)::bigint AS ago;

-- name: Succeed :execrows
-- Writes that the work is done into the open row of the lock that this session
-- holds. Nobody else has an open row of that process for the key: who held it
-- before is dead, and the grant has closed its row.
UPDATE public.lock_audit SET succeeded_at = pg_catalog.clock_timestamp()
WHERE key OPERATOR(pg_catalog.=) @key::bigint AND released_at IS NULL AND backend_pid OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid();
