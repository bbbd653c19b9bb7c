-- The statements of a pool's session, for many callers at once. The pool has
-- the session to itself, so no transaction is open. Each statement that changes
-- something checks first that the backend is still the same.

-- name: Backend :one
SELECT pg_catalog.pg_backend_pid()::integer AS pid;

-- name: PoolOpen :one
-- Sets the session's lease and some other settings, and returns what must be
-- known before locks are taken on it. idle_ms is the lease that it had, perhaps
-- its role's. room is the number of locks for which the whole server has
-- memory. deadlock_ms is the deadlock_timeout. before has the other settings as they
-- were, for PoolShut. The isolation is read committed, under which other sessions
-- cannot make the audit's rows fail. transaction_timeout, which PostgreSQL 17 and
-- later have, would end the session with all locks. The encoding is the UTF-8 that
-- we send.
SELECT
    o.pid,
    o.idle_ms,
    o.idle,
    o.idle_in_transaction,
    o.room,
    o.deadlock_ms,
    b.before,
    b.settings,
    (CASE WHEN @lease::varchar OPERATOR(pg_catalog.=) '' THEN '' ELSE pg_catalog.textcat(
        CASE WHEN o.idle OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @lease, false) ELSE '' END,
        pg_catalog.set_config('idle_in_transaction_session_timeout', @lease, false))
    END)::varchar AS lease
FROM (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        COALESCE((1000 OPERATOR(pg_catalog.*) extract(epoch FROM CAST(
            pg_catalog.current_setting('idle_session_timeout', true) AS interval))), 0)::bigint AS idle_ms,
        COALESCE(pg_catalog.current_setting('idle_session_timeout', true), '')::varchar AS idle,
        pg_catalog.current_setting('idle_in_transaction_session_timeout')::varchar AS idle_in_transaction,
        pg_catalog.int8mul(pg_catalog.current_setting('max_locks_per_transaction')::bigint, pg_catalog.int8pl(
            pg_catalog.current_setting('max_connections')::bigint, pg_catalog.current_setting('max_prepared_transactions')::bigint))::bigint AS room,
        (1000 OPERATOR(pg_catalog.*) extract(epoch FROM CAST(pg_catalog.current_setting('deadlock_timeout') AS interval)))::bigint AS deadlock_ms
    OFFSET 0
) o, (
    SELECT pg_catalog.jsonb_object_agg(w.name, w.before)::varchar AS before, pg_catalog.count(pg_catalog.set_config(w.name, w.setting, false))::bigint AS settings
    FROM (
        SELECT v.name, v.setting, pg_catalog.current_setting(v.name, true) AS before
        FROM (
            SELECT
                pg_catalog.unnest(ARRAY['default_transaction_isolation', 'lock_timeout', 'transaction_timeout', 'client_encoding',
                    'tcp_keepalives_idle', 'tcp_keepalives_interval', 'tcp_keepalives_count'])::varchar AS name,
                pg_catalog.unnest(ARRAY['read committed', '1s', '0', 'UTF8', '15', '5', '3'])::varchar AS setting
        ) v
        OFFSET 0
    ) w
    WHERE w.before IS NOT NULL
) b;

-- name: PoolShut :one
-- Puts back what PoolOpen has set.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    (
        SELECT pg_catalog.count(pg_catalog.set_config(b.name, b.setting, false))
        FROM pg_catalog.jsonb_each_text(CAST(@before::varchar AS pg_catalog.jsonb)) b(name, setting)
        WHERE pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer
    )::bigint AS settings,
    (CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.<>) @pid THEN '' ELSE pg_catalog.textcat(
        CASE WHEN @idle::varchar OPERATOR(pg_catalog.<>) '' THEN pg_catalog.set_config('idle_session_timeout', @idle, false) ELSE '' END,
        CASE WHEN @idle_in_transaction::varchar OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.set_config('idle_in_transaction_session_timeout', @idle_in_transaction, false) ELSE '' END)
    END)::varchar AS lease;

-- name: Batch :one
-- Unlocks the keys of release, then tries to lock those of acquire, and answers
-- with a '1' or '0' for each, in order. lines has, for each try, the hash of
-- the line that it does not overtake, or 0: see TryAcquireWith. unshare and
-- share say which of the locks are readers', and tickets has the tickets, of
-- this session, that are given up when the lock is granted (the hash plus the
-- number; 0: none). Each of these three may be empty. The second part reads the
-- first one's row before it locks anything, so that the unlocks come first, and
-- the last one reads the second's: so the fence is newer than each grant. All
-- grants of the statement share it. If hint is not 0, a ticket is taken last, as
-- by TakeNext, but with the next number or none. If the session can have the
-- number 0 of its line exclusively, nobody else is in that, and so hint is the
-- highest number: it need not try the following ones.
WITH s AS MATERIALIZED (
    SELECT pg_catalog.pg_backend_pid()::integer AS pid, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer AS ours
), r AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.string_agg(CASE
        WHEN k.ours AND CASE WHEN k.shared THEN pg_catalog.pg_advisory_unlock_shared(k.key) ELSE pg_catalog.pg_advisory_unlock(k.key) END THEN '1'
        ELSE '0'
    END, ''), '')::varchar AS released
    FROM (
        SELECT s.ours, pg_catalog.unnest(CAST(@release::varchar AS bigint[]))::bigint AS key, pg_catalog.unnest(CAST(@unshare::varchar AS boolean[]))::boolean AS shared
        FROM s
    ) k
), a AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.string_agg(CASE
        WHEN k.ours AND (k.line OPERATOR(pg_catalog.=) 0 OR pg_catalog.pg_try_advisory_xact_lock(
                pg_catalog.int8shr(k.line, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(k.line, 32), 32)::integer))
            AND CASE WHEN k.shared THEN pg_catalog.pg_try_advisory_lock_shared(k.key) ELSE pg_catalog.pg_try_advisory_lock(k.key) END
        THEN CASE
            WHEN k.ticket OPERATOR(pg_catalog.<>) 0 AND pg_catalog.pg_advisory_unlock(
                    pg_catalog.int8shr(k.ticket, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(k.ticket, 32), 32)::integer)
                AND pg_catalog.pg_advisory_unlock_shared(
                    pg_catalog.int8shr(k.ticket, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(pg_catalog.int8and(k.ticket, -262144), 32), 32)::integer) THEN '1'
            ELSE '1'
        END
        ELSE '0'
    END, ''), '')::varchar AS acquired
    FROM (
        SELECT s.ours AND r.released IS NOT NULL AS ours,
            pg_catalog.unnest(CAST(@acquire::varchar AS bigint[]))::bigint AS key, pg_catalog.unnest(CAST(@lines::varchar AS bigint[]))::bigint AS line,
            pg_catalog.unnest(CAST(@share::varchar AS boolean[]))::boolean AS shared, pg_catalog.unnest(CAST(@tickets::varchar AS bigint[]))::bigint AS ticket
        FROM s, r
    ) k
), j AS MATERIALIZED (
    SELECT h.class, h.slot, CASE WHEN @hint::integer OPERATOR(pg_catalog.=) 0 THEN false ELSE pg_catalog.pg_try_advisory_lock_shared(h.class, h.slot) END AS share
    FROM s, a, (
        SELECT pg_catalog.int8shr(@hash::bigint, 32)::integer AS class, pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot
    ) h
    WHERE s.ours AND a.acquired IS NOT NULL
), t AS MATERIALIZED (
    SELECT j.class, j.slot, j.share, LEAST(pg_catalog.int4pl(@hint, 24), 262140) AS beyond, CASE
        WHEN NOT j.share THEN NULL
        WHEN @own::boolean AND pg_catalog.pg_try_advisory_lock(j.class, j.slot) AND pg_catalog.pg_advisory_unlock(j.class, j.slot) THEN @hint
        ELSE COALESCE((
            SELECT pg_catalog.max(n.number)
            FROM pg_catalog.generate_series(@hint, LEAST(pg_catalog.int4pl(@hint, 32), 262143)) n (number)
            WHERE NOT CASE WHEN pg_catalog.pg_try_advisory_lock_shared(j.class, pg_catalog.int4pl(j.slot, n.number))
                THEN pg_catalog.pg_advisory_unlock_shared(j.class, pg_catalog.int4pl(j.slot, n.number)) ELSE false END
        ), CASE WHEN @own THEN @hint ELSE 262143 END)
    END AS last
    FROM j
)
SELECT s.pid, r.released, a.acquired, COALESCE((
        SELECT CASE
            WHEN NOT t.share THEN 0
            WHEN t.last OPERATOR(pg_catalog.<) t.beyond AND pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 1)))
            THEN pg_catalog.int4pl(t.last, 1)
            WHEN pg_catalog.pg_advisory_unlock_shared(t.class, t.slot) THEN 0
            ELSE 0
        END
        FROM t
    ), 0)::integer AS ticket, (CASE
    WHEN @fence::boolean AND pg_catalog.strpos(a.acquired, '1') OPERATOR(pg_catalog.>) 0
        AND pg_catalog.pg_logical_emit_message(true, 'swanlock', ''::varchar) IS NOT NULL
    THEN pg_catalog.int8pl(pg_catalog.pg_current_xact_id()::varchar::bigint, COALESCE(
        CASE WHEN pg_catalog.current_setting('swanlock.fence_offset', true) OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.current_setting('swanlock.fence_offset', true)::bigint END, 0))
    ELSE 0
END)::bigint AS fence
FROM s, r, a;

-- name: Pass :one
-- Batch for a lock without a row, that passes from its holder to the waiter with the
-- ticket in the line of hash, and perhaps for a ticket in that line for another. Each
-- part reads the row of the one before. It takes a third of the server's time, which
-- otherwise goes into beginning so long a statement for one lock. The planner believes
-- that any plan for these numbers costs the same, and so keeps one.
SELECT t.pid, t.released, t.acquired, (CASE
    WHEN NOT t.share THEN 0
    WHEN t.last OPERATOR(pg_catalog.<) t.beyond AND pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 1)))
    THEN pg_catalog.int4pl(t.last, 1)
    WHEN pg_catalog.pg_advisory_unlock_shared(t.class, t.slot) THEN 0
    ELSE 0
END)::integer AS ticket, (CASE
    WHEN @fence::boolean AND t.acquired OPERATOR(pg_catalog.=) '1' AND pg_catalog.pg_logical_emit_message(true, 'swanlock', ''::varchar) IS NOT NULL
    THEN pg_catalog.int8pl(pg_catalog.pg_current_xact_id()::varchar::bigint, COALESCE(
        CASE WHEN pg_catalog.current_setting('swanlock.fence_offset', true) OPERATOR(pg_catalog.<>) ''
            THEN pg_catalog.current_setting('swanlock.fence_offset', true)::bigint END, 0))
    ELSE 0
END)::bigint AS fence
FROM (
    SELECT j.pid, j.released, j.acquired, j.class, j.slot, j.share, LEAST(pg_catalog.int4pl(@hint, 24), 262140) AS beyond, CASE
        WHEN NOT j.share THEN NULL
        WHEN @own::boolean AND pg_catalog.pg_try_advisory_lock(j.class, j.slot) AND pg_catalog.pg_advisory_unlock(j.class, j.slot) THEN @hint
        ELSE COALESCE((
            SELECT pg_catalog.max(n.number)
            FROM (SELECT pg_catalog.int4pl(@hint, g.step) AS number FROM pg_catalog.generate_series(0, 32) g (step)) n
            WHERE NOT CASE
                WHEN n.number OPERATOR(pg_catalog.>) 262143 THEN true
                WHEN pg_catalog.pg_try_advisory_lock_shared(j.class, pg_catalog.int4pl(j.slot, n.number))
                THEN pg_catalog.pg_advisory_unlock_shared(j.class, pg_catalog.int4pl(j.slot, n.number))
                ELSE false
            END
        ), CASE WHEN @own THEN @hint ELSE 262143 END)
    END AS last
    FROM (
        SELECT a.pid, a.released, a.acquired, a.class, a.slot,
            CASE WHEN NOT a.ours OR @hint::integer OPERATOR(pg_catalog.=) 0 THEN false ELSE pg_catalog.pg_try_advisory_lock_shared(a.class, a.slot) END AS share
        FROM (
            SELECT r.pid, r.ours, r.released, r.class, r.slot, (CASE
                WHEN NOT r.ours THEN '0'
                WHEN NOT pg_catalog.pg_try_advisory_lock(@key::bigint) THEN '0'
                WHEN pg_catalog.pg_advisory_unlock(r.class, pg_catalog.int4pl(r.slot, @ticket::integer)) AND pg_catalog.pg_advisory_unlock_shared(r.class, r.slot) THEN '1'
                ELSE '1'
            END)::varchar AS acquired
            FROM (
                SELECT s.pid, s.ours, (CASE WHEN NOT s.ours THEN '0' WHEN pg_catalog.pg_advisory_unlock(@key) THEN '1' ELSE '0' END)::varchar AS released,
                    pg_catalog.int8shr(@hash::bigint, 32)::integer AS class, pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot
                FROM (
                    SELECT pg_catalog.pg_backend_pid()::integer AS pid, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer AS ours
                    OFFSET 0
                ) s
                OFFSET 0
            ) r
            OFFSET 0
        ) a
        OFFSET 0
    ) j
    OFFSET 0
) t;

-- name: BatchAudited :one
-- Batch with rows, for a pool's session. The rows with the ids of closing are
-- closed, with the time before the unlocks; of is the number, from 1 on, of the
-- row's unlock among those of release, or 0 if the lock is to stay, for other
-- readers; a row whose lock was not held any more is closed as lost. For each of
-- targets, owners, ttls, shared and under a row is written if its lock was
-- granted, with the time after the grants: under is the number of the lock among
-- those of acquire, or 0 if the session has it already. A row is written with
-- the transaction's id as its fence, which is assigned after the last grant,
-- since nothing is written before. So the rows are closed late, too, and the next
-- holder's CloseDead may have been there first, which is corrected. ids has the
-- new rows' ids, in the order of their texts. dead has a '1' for each of them
-- whose key has open rows of holders that must be dead: see TryAcquireAudited.
-- For the planner, the bounds of the ids leave one row, so that it goes by the
-- index: a plan of a new table, which is kept, would else read all of it.
WITH s AS MATERIALIZED (
    SELECT pg_catalog.pg_backend_pid()::integer AS pid, pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) @pid::integer AS ours,
        pg_catalog.clock_timestamp() AS began
), r AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.string_agg(CASE
        WHEN k.ours AND CASE WHEN k.shared THEN pg_catalog.pg_advisory_unlock_shared(k.key) ELSE pg_catalog.pg_advisory_unlock(k.key) END THEN '1'
        ELSE '0'
    END, ''), '')::varchar AS released
    FROM (
        SELECT s.ours, pg_catalog.unnest(CAST(@release::varchar AS bigint[]))::bigint AS key, pg_catalog.unnest(CAST(@unshare::varchar AS boolean[]))::boolean AS shared
        FROM s
    ) k
), a AS MATERIALIZED (
    SELECT COALESCE(pg_catalog.string_agg(CASE
        WHEN k.ours AND (k.line OPERATOR(pg_catalog.=) 0 OR pg_catalog.pg_try_advisory_xact_lock(
                pg_catalog.int8shr(k.line, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(k.line, 32), 32)::integer))
            AND CASE WHEN k.shared THEN pg_catalog.pg_try_advisory_lock_shared(k.key) ELSE pg_catalog.pg_try_advisory_lock(k.key) END
        THEN CASE
            WHEN k.ticket OPERATOR(pg_catalog.<>) 0 AND pg_catalog.pg_advisory_unlock(
                    pg_catalog.int8shr(k.ticket, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(k.ticket, 32), 32)::integer)
                AND pg_catalog.pg_advisory_unlock_shared(
                    pg_catalog.int8shr(k.ticket, 32)::integer, pg_catalog.int8shr(pg_catalog.int8shl(pg_catalog.int8and(k.ticket, -262144), 32), 32)::integer) THEN '1'
            ELSE '1'
        END
        ELSE '0'
    END, ''), '')::varchar AS acquired
    FROM (
        SELECT s.ours AND r.released IS NOT NULL AS ours,
            pg_catalog.unnest(CAST(@acquire::varchar AS bigint[]))::bigint AS key, pg_catalog.unnest(CAST(@lines::varchar AS bigint[]))::bigint AS line,
            pg_catalog.unnest(CAST(@share::varchar AS boolean[]))::boolean AS shared, pg_catalog.unnest(CAST(@tickets::varchar AS bigint[]))::bigint AS ticket
        FROM s, r
    ) k
), f AS MATERIALIZED (
    SELECT s.pid, s.ours, s.began, r.released, a.acquired, pg_catalog.clock_timestamp() AS granted_at, (CASE
        WHEN pg_catalog.strpos(a.acquired, '1') OPERATOR(pg_catalog.>) 0
        THEN pg_catalog.int8pl(pg_catalog.pg_current_xact_id()::varchar::bigint, COALESCE(
            CASE WHEN pg_catalog.current_setting('swanlock.fence_offset', true) OPERATOR(pg_catalog.<>) ''
                THEN pg_catalog.current_setting('swanlock.fence_offset', true)::bigint END, 0))
        ELSE 0
    END)::bigint AS fence
    FROM s, r, a
), j AS MATERIALIZED (
    SELECT h.class, h.slot, CASE WHEN @hint::integer OPERATOR(pg_catalog.=) 0 THEN false ELSE pg_catalog.pg_try_advisory_lock_shared(h.class, h.slot) END AS share
    FROM f, (
        SELECT pg_catalog.int8shr(@hash::bigint, 32)::integer AS class, pg_catalog.int8shr(pg_catalog.int8shl(@hash, 32), 32)::integer AS slot
    ) h
    WHERE f.ours
), t AS MATERIALIZED (
    SELECT j.class, j.slot, j.share, LEAST(pg_catalog.int4pl(@hint, 24), 262140) AS beyond, CASE
        WHEN NOT j.share THEN NULL
        WHEN @own::boolean AND pg_catalog.pg_try_advisory_lock(j.class, j.slot) AND pg_catalog.pg_advisory_unlock(j.class, j.slot) THEN @hint
        ELSE COALESCE((
            SELECT pg_catalog.max(n.number)
            FROM pg_catalog.generate_series(@hint, LEAST(pg_catalog.int4pl(@hint, 32), 262143)) n (number)
            WHERE NOT CASE WHEN pg_catalog.pg_try_advisory_lock_shared(j.class, pg_catalog.int4pl(j.slot, n.number))
                THEN pg_catalog.pg_advisory_unlock_shared(j.class, pg_catalog.int4pl(j.slot, n.number)) ELSE false END
        ), CASE WHEN @own THEN @hint ELSE 262143 END)
    END AS last
    FROM j
), closed AS (
    UPDATE public.lock_audit u SET
        released_at = CASE WHEN c.held THEN GREATEST(u.refreshed_at, LEAST(u.released_at, c.began)) ELSE u.refreshed_at END,
        end_reason = CASE WHEN c.held THEN CASE WHEN c.expired THEN 'expired' ELSE 'released' END ELSE 'lost' END
    FROM (
        SELECT n.id, n.expired, n.began,
            (n.of OPERATOR(pg_catalog.=) 0 OR pg_catalog.substr(n.released, n.of, 1) OPERATOR(pg_catalog.=) '1') AS held
        FROM (
            SELECT f.released, f.began, pg_catalog.unnest(CAST(@closing::varchar AS bigint[]))::bigint AS id,
                pg_catalog.unnest(CAST(@of::varchar AS integer[]))::integer AS of, pg_catalog.unnest(CAST(@expired::varchar AS boolean[]))::boolean AS expired
            FROM f
            WHERE f.ours
        ) n
        WHERE n.id OPERATOR(pg_catalog.>) 0 AND n.id OPERATOR(pg_catalog.<) 9223372036854775807
    ) c
    WHERE u.id OPERATOR(pg_catalog.=) c.id AND (u.released_at IS NULL OR u.end_reason OPERATOR(pg_catalog.=) 'killed')
), n AS MATERIALIZED (
    SELECT pg_catalog.row_number() OVER () AS place, w.*
    FROM (
        SELECT f.pid, f.granted_at, f.fence, f.acquired,
            pg_catalog.unnest(CAST(@keys::varchar AS bigint[]))::bigint AS key, pg_catalog.unnest(CAST(@targets::varchar AS varchar[]))::varchar AS target,
            pg_catalog.unnest(CAST(@owners::varchar AS varchar[]))::varchar AS owner, pg_catalog.unnest(CAST(@ttls::varchar AS bigint[]))::bigint AS ttl_ms,
            pg_catalog.unnest(CAST(@shared::varchar AS boolean[]))::boolean AS shared, pg_catalog.unnest(CAST(@under::varchar AS integer[]))::integer AS under
        FROM f
        WHERE f.ours
    ) w
    WHERE w.under OPERATOR(pg_catalog.=) 0 OR pg_catalog.substr(w.acquired, w.under, 1) OPERATOR(pg_catalog.=) '1'
), row AS (
    INSERT INTO public.lock_audit (target, key, owner, ttl_ms, mode, fence, backend_pid, backend_start, client_addr, acquired_at, refreshed_at)
    SELECT n.target, n.key, n.owner, n.ttl_ms, CASE WHEN n.shared THEN 'shared' ELSE 'exclusive' END,
        CASE WHEN n.shared THEN NULL ELSE n.fence END, n.pid, pg_catalog.to_timestamp(@started::double precision),
        pg_catalog.inet_client_addr(), n.granted_at, n.granted_at
    FROM n
    ORDER BY n.place
    RETURNING id
)
SELECT
    f.pid, f.released, f.acquired, COALESCE((
        SELECT CASE
            WHEN NOT t.share THEN 0
            WHEN t.last OPERATOR(pg_catalog.<) t.beyond AND pg_catalog.pg_try_advisory_lock(t.class, pg_catalog.int4pl(t.slot, pg_catalog.int4pl(t.last, 1)))
            THEN pg_catalog.int4pl(t.last, 1)
            WHEN pg_catalog.pg_advisory_unlock_shared(t.class, t.slot) THEN 0
            ELSE 0
        END
        FROM t
    ), 0)::integer AS ticket, f.fence,
    COALESCE((SELECT pg_catalog.string_agg(row.id::varchar, ',' ORDER BY row.id) FROM row), '')::varchar AS ids,
    COALESCE((
        SELECT pg_catalog.string_agg(CASE WHEN EXISTS (
            SELECT FROM public.lock_audit o
            WHERE o.key OPERATOR(pg_catalog.=) n.key AND o.released_at IS NULL AND (n.shared IS NOT TRUE OR o.mode OPERATOR(pg_catalog.=) 'exclusive')
                AND o.id OPERATOR(pg_catalog.<>) ALL (CAST(@closing::varchar AS bigint[]))
        ) THEN '1' ELSE '0' END, '' ORDER BY n.place) FROM n
    ), '')::varchar AS dead
FROM f;

-- name: Readers :one
-- For each of keys: '0' if this session does not hold the lock as a reader, '2'
-- if it does and no session waits for the lock, else '1'. A session waits that is
-- in the server's queue to have the lock alone, or that has a ticket with a number
-- below that of below.
WITH k AS MATERIALIZED (
    SELECT
        k.pid, k.objsubid, k.mode, k.granted,
        pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint) AS key,
        pg_catalog.int8and(k.objid::bigint, 262143) AS number
    FROM pg_catalog.pg_locks k
    WHERE (k.locktype, k.database) OPERATOR(pg_catalog.=)
        ('advisory', (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
)
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    COALESCE(pg_catalog.string_agg(CASE
        WHEN o.key IS NULL THEN '0'
        WHEN w.key IS NOT NULL OR t.lowest OPERATOR(pg_catalog.<) q.below THEN '1'
        ELSE '2'
    END, '' ORDER BY q.place), '')::varchar AS answers
FROM (
    SELECT pg_catalog.row_number() OVER () AS place, n.key, n.below
    FROM (
        SELECT pg_catalog.unnest(CAST(@keys::varchar AS bigint[]))::bigint AS key, pg_catalog.unnest(CAST(@below::varchar AS bigint[]))::bigint AS below
        OFFSET 0
    ) n
) q
LEFT JOIN (
    SELECT DISTINCT k.key FROM k
    WHERE (k.pid, k.objsubid, k.mode) OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 1, 'ShareLock') AND k.granted
) o ON o.key OPERATOR(pg_catalog.=) q.key
LEFT JOIN (
    SELECT DISTINCT k.key FROM k
    WHERE (k.objsubid, k.mode) OPERATOR(pg_catalog.=) (1, 'ExclusiveLock') AND NOT k.granted
) w ON w.key OPERATOR(pg_catalog.=) q.key
LEFT JOIN (
    SELECT pg_catalog.int8and(k.key, -262144) AS hash, pg_catalog.min(k.number) AS lowest FROM k
    WHERE (k.objsubid, k.mode) OPERATOR(pg_catalog.=) (2, 'ExclusiveLock') AND k.granted AND k.number OPERATOR(pg_catalog.>) 0
    GROUP BY 1
) t ON t.hash OPERATOR(pg_catalog.=) pg_catalog.int8and(q.key, -262144);

-- name: Heartbeat :one
-- Counts the locks of this session, and adds up the two halves of their keys.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    pg_catalog.count(*)::bigint AS locks,
    COALESCE(pg_catalog.sum(pg_catalog.int8pl(k.classid::bigint, k.objid::bigint)), 0)::bigint AS sum
FROM pg_catalog.pg_locks k
WHERE (k.pid, k.locktype, k.objsubid) OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1) AND k.granted;

-- name: HeartbeatAudited :one
-- Heartbeat with rows: if the number of the locks and the sum of their keys are
-- as expected, all locks are proven, and the rows with these ids say so.
WITH h AS MATERIALIZED (
    SELECT
        pg_catalog.pg_backend_pid()::integer AS pid,
        pg_catalog.count(*)::bigint AS locks,
        COALESCE(pg_catalog.sum(pg_catalog.int8pl(k.classid::bigint, k.objid::bigint)), 0)::bigint AS sum
    FROM pg_catalog.pg_locks k
    WHERE (k.pid, k.locktype, k.objsubid) OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1) AND k.granted
), row AS (
    UPDATE public.lock_audit a SET refreshed_at = GREATEST(a.refreshed_at, pg_catalog.clock_timestamp())
    FROM h
    WHERE h.locks OPERATOR(pg_catalog.=) @locks::bigint AND h.sum OPERATOR(pg_catalog.=) @sum::bigint
        AND a.id OPERATOR(pg_catalog.=) ANY (CAST(@ids::varchar AS bigint[])) AND a.released_at IS NULL
)
SELECT h.pid, h.locks, h.sum FROM h;

-- name: HeldKeys :many
-- Lists the locks of this session.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint)::bigint AS key,
    (k.mode OPERATOR(pg_catalog.=) 'ShareLock')::boolean AS shared
FROM pg_catalog.pg_locks k
WHERE (k.pid, k.locktype, k.objsubid) OPERATOR(pg_catalog.=) (pg_catalog.pg_backend_pid(), 'advisory', 1) AND k.granted;

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
