-- What pginspect asks the server: who holds and waits, what it may do, and how
-- the server is set. Times are in microseconds since 1970; 0 is none.

-- name: InspectTable :one
-- Describes the audit's table: the first schema of the search_path that has a
-- lock_audit that is not temporary, quoted, or ''; whether it has the columns of
-- the second and the fourth migration; how many of the indexes are there and
-- valid; what the role may do with it; the triggers that may drop a row (in
-- tgtype 1 is FOR EACH ROW, 2 BEFORE, 4 INSERT and 16 UPDATE); whether row security
-- applies to the role; and for how many of SELECT, INSERT and UPDATE it has a
-- policy.
SELECT
    COALESCE(pg_catalog.max(t.schema), '')::varchar AS schema,
    COALESCE(pg_catalog.bool_or(t.ended_by), false)::boolean AS ended_by,
    COALESCE(pg_catalog.bool_or(t.succeeded_at), false)::boolean AS succeeded_at,
    COALESCE(pg_catalog.max(t.indexes), 0)::bigint AS indexes,
    COALESCE(pg_catalog.max(t.partitioned), 0)::bigint AS partitioned,
    COALESCE(pg_catalog.bool_or(t.may_select), false)::boolean AS may_select,
    COALESCE(pg_catalog.bool_or(t.may_write), false)::boolean AS may_write,
    COALESCE(pg_catalog.bool_or(t.may_delete), false)::boolean AS may_delete,
    COALESCE(pg_catalog.max(t.triggers), '')::varchar AS triggers,
    COALESCE(pg_catalog.bool_or(t.policed), false)::boolean AS policed,
    COALESCE(pg_catalog.max(t.policies), 0)::bigint AS policies
FROM (
    SELECT
        pg_catalog.quote_ident(n.nspname) AS schema,
        EXISTS (
            SELECT FROM pg_catalog.pg_attribute a
            WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) 'ended_by' AND NOT a.attisdropped
        ) AS ended_by,
        EXISTS (
            SELECT FROM pg_catalog.pg_attribute a
            WHERE a.attrelid OPERATOR(pg_catalog.=) c.oid AND a.attname OPERATOR(pg_catalog.=) 'succeeded_at' AND NOT a.attisdropped
        ) AS succeeded_at,
        (
            SELECT pg_catalog.count(*) FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid OPERATOR(pg_catalog.=) i.indexrelid
            WHERE i.indrelid OPERATOR(pg_catalog.=) c.oid AND i.indisvalid AND (x.relname OPERATOR(pg_catalog.=) 'lock_audit_open' OR x.relname OPERATOR(pg_catalog.=) 'lock_audit_key'
                OR x.relname OPERATOR(pg_catalog.=) 'lock_audit_time' OR x.relname OPERATOR(pg_catalog.=) 'lock_audit_span')
        ) AS indexes,
        CASE WHEN c.relkind OPERATOR(pg_catalog.=) 'p' THEN 1 ELSE 0 END AS partitioned,
        pg_catalog.has_table_privilege(c.oid, 'SELECT') AS may_select,
        pg_catalog.has_table_privilege(c.oid, 'INSERT') AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AS may_write,
        pg_catalog.has_table_privilege(c.oid, 'DELETE') AS may_delete,
        (
            SELECT pg_catalog.string_agg(g.tgname::varchar, ', ' ORDER BY g.tgname) FROM pg_catalog.pg_trigger g
            WHERE g.tgrelid OPERATOR(pg_catalog.=) c.oid AND NOT g.tgisinternal AND g.tgenabled OPERATOR(pg_catalog.<>) 'D'
                AND pg_catalog.int4and(g.tgtype::integer, 3) OPERATOR(pg_catalog.=) 3 AND pg_catalog.int4and(g.tgtype::integer, 20) OPERATOR(pg_catalog.<>) 0
        ) AS triggers,
        pg_catalog.row_security_active(c.oid) AS policed,
        (
            SELECT pg_catalog.count(*) FROM (VALUES ('r'), ('a'), ('w')) v (command)
            WHERE EXISTS (
                SELECT FROM pg_catalog.pg_policy p, LATERAL pg_catalog.unnest(p.polroles) r (id)
                WHERE p.polrelid OPERATOR(pg_catalog.=) c.oid AND p.polpermissive
                    AND (p.polcmd::varchar OPERATOR(pg_catalog.=) '*' OR p.polcmd::varchar OPERATOR(pg_catalog.=) v.command)
                    AND CASE WHEN r.id OPERATOR(pg_catalog.=) 0 THEN true ELSE pg_catalog.pg_has_role(r.id, 'USAGE') END
            )
        ) AS policies
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.relname OPERATOR(pg_catalog.=) 'lock_audit' AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
        AND pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname) IS NOT NULL
    ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname)
    LIMIT 1
) t;

-- name: InspectLocks :many
-- Lists every advisory lock that is held or waited for on the server, with its
-- session. Of sessions of other roles the columns are empty, unless this role
-- may read all statistics (pg_read_all_stats). space is 1 for locks with one
-- number of 64 bits, and 2 for those with two of 32. turn says that the session
-- runs the statement Turn. at is the time of the look.
SELECT
    k.pid::integer AS pid,
    pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint)::bigint AS key,
    k.objsubid::integer AS space,
    (k.mode OPERATOR(pg_catalog.=) 'ShareLock')::boolean AS shared,
    k.granted::boolean AS granted,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM k.waitstart), 0)::bigint AS waiting_since,
    COALESCE(d.datname, '')::varchar AS database,
    COALESCE(d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database(), false)::boolean AS here,
    COALESCE(a.usename, '')::varchar AS role,
    COALESCE(a.application_name, '')::varchar AS application,
    COALESCE(pg_catalog.host(a.client_addr), '')::varchar AS client,
    COALESCE(a.state, '')::varchar AS state,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.backend_start), 0)::bigint AS started,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.query_start), 0)::bigint AS asked,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.state_change), 0)::bigint AS changed,
    COALESCE(pg_catalog.starts_with(a.query, 'SELECT s.pid, s.waits,'), false)::boolean AS turn,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.clock_timestamp()))::bigint AS at
FROM pg_catalog.pg_locks k
    LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) k.database
    LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid OPERATOR(pg_catalog.=) k.pid
WHERE k.locktype OPERATOR(pg_catalog.=) 'advisory' AND k.pid IS NOT NULL;

-- name: InspectAudit :many
-- Says what the audit knows of the locks that are held or waited for in this
-- database: the row that the session has open, if there is one (id is not 0),
-- and the name under which the key was last locked, or ''.
SELECT
    k.pid::integer AS pid,
    k.key::bigint AS key,
    COALESCE(n.target, '')::varchar AS name,
    COALESCE(a.id, 0)::bigint AS id,
    COALESCE(a.target, '')::varchar AS target,
    COALESCE(a.owner, '')::varchar AS owner,
    COALESCE(a.ttl_ms, 0)::bigint AS ttl_ms,
    COALESCE(a.fence, 0)::bigint AS fence,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.backend_start), 0)::bigint AS started,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.acquired_at), 0)::bigint AS acquired,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM a.refreshed_at), 0)::bigint AS refreshed
FROM (
        SELECT DISTINCT l.pid, pg_catalog.int8or(pg_catalog.int8shl(l.classid::bigint, 32), l.objid::bigint) AS key
        FROM pg_catalog.pg_locks l
        WHERE (l.locktype, l.objsubid, l.database) OPERATOR(pg_catalog.=) ('advisory', 1,
            (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))
    ) k
    LEFT JOIN LATERAL (
        SELECT r.id, r.target, r.owner, r.ttl_ms, r.fence, r.backend_start, r.acquired_at, r.refreshed_at
        FROM public.lock_audit r
        WHERE r.key OPERATOR(pg_catalog.=) k.key AND r.backend_pid OPERATOR(pg_catalog.=) k.pid AND r.released_at IS NULL
        ORDER BY r.id DESC
        LIMIT 1
    ) a ON true
    LEFT JOIN LATERAL (
        SELECT r.target FROM public.lock_audit r WHERE r.key OPERATOR(pg_catalog.=) k.key ORDER BY r.acquired_at DESC LIMIT 1
    ) n ON true;

-- name: InspectLive :many
-- Lists the 64-bit advisory locks that sessions hold in this database now, and when
-- each session began (0: this role may not see it). There is one row at least, with
-- the time before the look, and key and pid 0.
SELECT 0::integer AS pid, 0::bigint AS key, 0::bigint AS started, (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.clock_timestamp()))::bigint AS at
UNION ALL
SELECT k.pid::integer, pg_catalog.int8or(pg_catalog.int8shl(k.classid::bigint, 32), k.objid::bigint)::bigint,
    COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.backend_start), 0)::bigint, 0::bigint
FROM pg_catalog.pg_locks k
    LEFT JOIN pg_catalog.pg_stat_activity b ON b.pid OPERATOR(pg_catalog.=) k.pid
WHERE (k.locktype, k.objsubid, k.database) OPERATOR(pg_catalog.=) ('advisory', 1,
    (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())) AND k.granted;

-- name: InspectBackend :one
-- Reports whether the session is there whose process is pid and was started
-- then; with started = 0, any session with that process id.
SELECT EXISTS (
    SELECT FROM pg_catalog.pg_stat_get_activity(@pid::integer) b
    WHERE b.pid IS NOT NULL AND (@started::bigint OPERATOR(pg_catalog.=) 0
        OR COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.backend_start), 0)::bigint OPERATOR(pg_catalog.=) @started)
)::boolean AS there;

-- name: KillBackend :one
-- Ends the session, if it is the one that was seen, and still has an advisory
-- lock or waits for one. It never ends the session that sends this. at is before
-- that end, and so before the next holder's grant.
SELECT COALESCE(pg_catalog.bool_or(pg_catalog.pg_terminate_backend(b.pid)), false)::boolean AS ended,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.statement_timestamp()))::bigint AS at
FROM pg_catalog.pg_stat_get_activity(@pid::integer) b
WHERE COALESCE(1000000 OPERATOR(pg_catalog.*) extract(epoch FROM b.backend_start), 0)::bigint OPERATOR(pg_catalog.=) @started::bigint
    AND b.pid OPERATOR(pg_catalog.<>) pg_catalog.pg_backend_pid()
    AND EXISTS (SELECT FROM pg_catalog.pg_locks k WHERE (k.pid, k.locktype) OPERATOR(pg_catalog.=) (b.pid, 'advisory'));

-- name: CheckServer :one
-- Returns what the doctor wants to know of the server and of the role. max_sessions
-- leaves out those that PostgreSQL keeps for some roles.
SELECT
    pg_catalog.pg_backend_pid()::integer AS pid,
    pg_catalog.current_setting('server_version')::varchar AS version,
    pg_catalog.current_setting('server_version_num')::bigint AS version_num,
    (pg_catalog.current_setting('crdb_version', true) IS NOT NULL
        OR COALESCE(pg_catalog.current_setting('yb_silence_advisory_locks_not_supported_error', true) OPERATOR(pg_catalog.=) 'on', false))::boolean AS pretends,
    pg_catalog.pg_is_in_recovery()::boolean AS standby,
    pg_catalog.session_user()::varchar AS role,
    pg_catalog.current_database()::varchar AS database,
    (pg_catalog.inet_client_addr() IS NOT NULL)::boolean AS tcp,
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks k WHERE NOT k.fastpath)::bigint AS locks,
    (pg_catalog.current_setting('max_locks_per_transaction')::bigint OPERATOR(pg_catalog.*)
        (pg_catalog.int8pl(pg_catalog.current_setting('max_connections')::bigint, pg_catalog.current_setting('max_prepared_transactions')::bigint)))::bigint AS capacity,
    pg_catalog.current_setting('max_locks_per_transaction')::bigint AS locks_per_transaction,
    (SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity a WHERE a.datid IS NOT NULL)::bigint AS sessions,
    pg_catalog.int8mi(pg_catalog.int8mi(pg_catalog.current_setting('max_connections')::bigint, pg_catalog.current_setting('superuser_reserved_connections')::bigint),
        COALESCE(pg_catalog.current_setting('reserved_connections', true), '0')::bigint)::bigint AS max_sessions,
    pg_catalog.pg_has_role('pg_signal_backend', 'USAGE')::boolean AS may_end,
    pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE')::boolean AS may_see,
    COALESCE(pg_catalog.current_setting('swanlock.fence_offset', true), '')::varchar AS fence_offset,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.clock_timestamp()))::bigint AS at;

-- name: CheckSettings :many
-- Returns settings as they are for this session, and where they come from.
SELECT s.name::varchar AS name, COALESCE(s.setting, '')::varchar AS setting, COALESCE(s.unit, '')::varchar AS unit, s.source::varchar AS source
FROM pg_catalog.pg_settings s
WHERE s.name OPERATOR(pg_catalog.=) ANY (CAST(@names::varchar AS pg_catalog.text[]));

-- name: CheckRoleSettings :many
-- Returns the settings that ALTER ROLE and ALTER DATABASE have made for sessions
-- in this database, as name=value. role and database are '' for all, and quoted.
SELECT
    COALESCE(pg_catalog.quote_ident(r.rolname), '')::varchar AS role,
    COALESCE(pg_catalog.quote_ident(d.datname), '')::varchar AS database,
    c.setting::varchar AS setting
FROM pg_catalog.pg_db_role_setting s
    LEFT JOIN pg_catalog.pg_roles r ON r.oid OPERATOR(pg_catalog.=) s.setrole
    LEFT JOIN pg_catalog.pg_database d ON d.oid OPERATOR(pg_catalog.=) s.setdatabase,
    LATERAL pg_catalog.unnest(s.setconfig) c (setting)
WHERE d.datname IS NULL OR d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
ORDER BY 1, 2, 3;

-- name: CheckFences :one
-- Describes the fence guard: the first schema of the search_path that has a
-- lock_fences, quoted, or ''; whether the role may write and read it, as
-- lock_fence does; and whether it needs that, since it may write to a table that
-- has the trigger lock_fenced.
SELECT
    COALESCE(pg_catalog.max(f.schema), '')::varchar AS schema,
    COALESCE(pg_catalog.bool_or(f.may_write), false)::boolean AS may_write,
    COALESCE(pg_catalog.bool_or(f.needed), false)::boolean AS needed
FROM (
    SELECT
        pg_catalog.quote_ident(n.nspname) AS schema,
        pg_catalog.has_table_privilege(c.oid, 'SELECT') AND pg_catalog.has_table_privilege(c.oid, 'INSERT')
            AND pg_catalog.has_table_privilege(c.oid, 'UPDATE') AS may_write,
        EXISTS (
            SELECT FROM pg_catalog.pg_trigger g JOIN pg_catalog.pg_proc p ON p.oid OPERATOR(pg_catalog.=) g.tgfoid
            WHERE p.proname OPERATOR(pg_catalog.=) 'lock_fenced' AND p.pronamespace OPERATOR(pg_catalog.=) n.oid AND NOT g.tgisinternal
                AND (pg_catalog.has_table_privilege(g.tgrelid, 'INSERT') OR pg_catalog.has_table_privilege(g.tgrelid, 'UPDATE')
                    OR pg_catalog.has_table_privilege(g.tgrelid, 'DELETE'))
        ) AS needed
    FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
    WHERE c.relname OPERATOR(pg_catalog.=) 'lock_fences' AND c.relpersistence OPERATOR(pg_catalog.<>) 't'
        AND pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname) IS NOT NULL
    ORDER BY pg_catalog.array_position(pg_catalog.current_schemas(false), n.nspname)
    LIMIT 1
) f;
