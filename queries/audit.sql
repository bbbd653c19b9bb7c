-- The same life with a row of lock_audit written by the same statement. A
-- key's exclusive intervals never overlap: acquired_at is read after the grant
-- and released_at before the unlock.

-- name: TryAcquireAudited :one
-- As TryAcquireWith, and an exclusive lock has a fence, asked for or not, but in a
-- transaction that has its id already. backend is what Mark answered, and started
-- (seconds since 1970) is that one's: no other may answer. dead says that the
-- grant has proven somebody gone who has an open row for this key, which CloseDead
-- is to close; a reader's grant proves that of no other reader.
WITH l AS MATERIALIZED (
    SELECT
        pg_backend_pid()::integer AS pid,
        (CASE
            WHEN @fence::boolean AND pg_current_xact_id_if_assigned() IS NOT NULL THEN -3
            WHEN pg_backend_pid() <> @backend::integer OR current_setting('swanlock.session', true) IS DISTINCT FROM @session::text THEN -4
            WHEN @gate::integer <> 0 AND NOT pg_try_advisory_xact_lock(@gate, 0) THEN -1
            WHEN CASE WHEN @shared::boolean THEN pg_try_advisory_lock_shared(@key::bigint) ELSE pg_try_advisory_lock(@key) END
            THEN CASE WHEN @shared OR pg_current_xact_id_if_assigned() IS NOT NULL THEN 0 ELSE pg_current_xact_id()::text::bigint END
            ELSE -1
        END)::bigint AS answer,
        COALESCE(current_setting('idle_session_timeout', true), '')::text AS idle,
        current_setting('idle_in_transaction_session_timeout')::text AS idle_in_transaction
), row AS (
    INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, fence, backend_pid, backend_start, client_addr, acquired_at, refreshed_at)
    SELECT @target::text, @key::bigint, @owner::text, @ttl_ms::bigint, CASE WHEN @shared THEN 'shared' ELSE 'exclusive' END,
        NULLIF(g.answer, 0), g.pid, to_timestamp(@started::double precision), inet_client_addr(), g.granted_at, g.granted_at
    FROM (SELECT l.pid, l.answer, clock_timestamp() AS granted_at FROM l WHERE l.answer >= 0) g
    RETURNING id
)
SELECT
    l.pid,
    l.answer,
    COALESCE(row.id, 0)::bigint AS audit_id,
    (l.answer >= 0 AND EXISTS (
        SELECT FROM lock_audit o WHERE o.key = @key::bigint AND o.released_at IS NULL AND (NOT @shared OR o.mode = 'exclusive')
    ))::boolean AS dead,
    l.idle,
    l.idle_in_transaction,
    (CASE WHEN l.answer >= 0 AND @lease::text <> '' THEN
        CASE WHEN l.idle <> '' THEN set_config('idle_session_timeout', @lease, false) ELSE '' END
        || set_config('idle_in_transaction_session_timeout', @lease, false)
    ELSE '' END)::text AS lease
FROM l LEFT JOIN row ON true;

-- name: CloseDead :exec
-- Closes what the grant of a row, which is still held, has proven to be over: the
-- open rows of its key that are older than it; by a reader, the exclusive ones.
-- They end at most at this grant, and at most where the next interval began (a row
-- may have come too late for that grant's snapshot), and by a reader at their last
-- proof: another reader may have been granted before. A row that somebody is
-- closing, perhaps in a long transaction, is not waited for. A clock that was set
-- back may not make an interval end before it began.
UPDATE lock_audit a SET
    released_at = GREATEST(a.acquired_at, CASE WHEN g.mode = 'shared' THEN a.refreshed_at ELSE LEAST(g.acquired_at, (
        SELECT min(n.acquired_at) FROM lock_audit n
        WHERE n.key = a.key AND n.acquired_at > a.acquired_at AND (n.mode = 'exclusive' OR a.mode = 'exclusive'))) END),
    end_reason = CASE WHEN a.ttl_ms > 0 AND a.refreshed_at + a.ttl_ms * interval '1 millisecond' <= g.acquired_at THEN 'expired' ELSE 'killed' END
FROM lock_audit g, LATERAL (
    SELECT o.id FROM lock_audit o
    WHERE o.key = g.key AND o.id < g.id AND o.released_at IS NULL AND (g.mode = 'exclusive' OR o.mode = 'exclusive')
    FOR UPDATE SKIP LOCKED
) o
WHERE g.id = @audit_id AND a.id = o.id;

-- name: RefreshAudited :one
-- As Refresh. A lock that is found lost was proven for the last time at
-- refreshed_at: there its interval ends.
WITH h AS MATERIALIZED (
    SELECT
        pg_backend_pid()::integer AS pid,
        EXISTS (
            SELECT FROM pg_catalog.pg_locks k
            WHERE k.locktype = 'advisory' AND k.pid = pg_backend_pid() AND k.objsubid = 1 AND k.granted
                AND k.classid::bigint = ((@key::bigint >> 32) & 4294967295) AND k.objid::bigint = (@key & 4294967295)
                AND k.mode = CASE WHEN @shared::boolean THEN 'ShareLock' ELSE 'ExclusiveLock' END
        )::boolean AS held
), row AS (
    UPDATE lock_audit a SET
        refreshed_at = CASE WHEN h.held THEN GREATEST(a.refreshed_at, clock_timestamp()) ELSE a.refreshed_at END,
        released_at = CASE WHEN h.held THEN NULL ELSE a.refreshed_at END,
        end_reason = CASE WHEN h.held THEN NULL ELSE 'lost' END
    FROM h
    WHERE a.id = @audit_id AND a.released_at IS NULL
)
SELECT
    h.pid,
    h.held,
    (CASE WHEN h.held THEN
        CASE WHEN @idle::text <> '' THEN set_config('idle_session_timeout', @idle, false) ELSE '' END
        || CASE WHEN @idle_in_transaction::text <> '' THEN set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END
    ELSE '' END)::text AS lease
FROM h;

-- name: ReleaseAudited :one
-- As Release, and the row is closed first, so that the interval ends before the
-- next begins.
WITH row AS (
    UPDATE lock_audit SET released_at = GREATEST(refreshed_at, clock_timestamp()), end_reason = @end_reason::text
    WHERE id = @audit_id AND released_at IS NULL AND pg_backend_pid() = @pid::integer
    RETURNING id
), closed AS MATERIALIZED (
    SELECT count(*) AS n FROM row
), r AS MATERIALIZED (
    SELECT
        pg_backend_pid()::integer AS pid,
        pg_backend_pid() = @pid AS same,
        (CASE WHEN pg_backend_pid() = @pid THEN
            CASE WHEN @shared::boolean THEN pg_advisory_unlock_shared(@key::bigint) ELSE pg_advisory_unlock(@key) END
        ELSE false END)::boolean AS released
    FROM closed
)
SELECT
    r.pid,
    r.released,
    (CASE WHEN r.same THEN
        CASE WHEN @idle::text <> '' THEN set_config('idle_session_timeout', @idle, false) ELSE '' END
        || CASE WHEN @idle_in_transaction::text <> '' THEN set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END
    ELSE '' END)::text AS lease
FROM r;

-- name: AuditLost :exec
-- Corrects the row of a lock whose release found it gone.
UPDATE lock_audit SET released_at = refreshed_at, end_reason = 'lost' WHERE id = @audit_id AND end_reason = 'released';
