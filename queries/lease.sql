-- The statements of leaselock. Each is a transaction of its own, so that any
-- pooler and any server may run it. Times are by the server's clock. The table is
-- public.lock_leases here; the schema is replaced before a statement is sent.

-- name: AcquireLease :one
-- Takes the key for lease microseconds if it is free, or if it is this token's
-- already, and returns the fence. It returns no row if another has it. It looks
-- before it inserts, so that a try in vain writes nothing. The insert looks once
-- more, at the row as it is when its turn has come. It takes nothing for a token
-- that was withdrawn.
INSERT INTO public.lock_leases AS l (key, target, owner, token, fence, acquired_at, ends_at)
SELECT @key::bigint, @target::varchar, @owner::varchar, @token::varchar,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.clock_timestamp()))::bigint,
    pg_catalog.clock_timestamp(),
    (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (@lease::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
WHERE NOT EXISTS (
    SELECT 1 FROM public.lock_leases o
    WHERE o.key OPERATOR(pg_catalog.=) @key::bigint AND o.token OPERATOR(pg_catalog.<>) @token::varchar AND o.ends_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
)
ON CONFLICT (key) DO UPDATE SET
    target = excluded.target,
    owner = excluded.owner,
    token = excluded.token,
    fence = GREATEST(excluded.fence, (l.fence OPERATOR(pg_catalog.+) 1)),
    acquired_at = pg_catalog.clock_timestamp(),
    ends_at = (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (@lease::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
WHERE l.token IS NULL OR l.token OPERATOR(pg_catalog.=) excluded.token OR l.ends_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp()
    AND l.token OPERATOR(pg_catalog.<>) ('withdrawn '::varchar OPERATOR(pg_catalog.||) excluded.token)
RETURNING l.fence;

-- name: WithdrawLease :execrows
-- Frees the key if the token has it, and keeps an AcquireLease with that token,
-- which is still under way, from taking it: this waits for one that has begun,
-- and leaves the token's withdrawn form for one that has not. If another has the
-- key, nothing is left.
INSERT INTO public.lock_leases AS l (key, target, owner, token, fence, acquired_at, ends_at)
SELECT @key::bigint, @target::varchar, @owner::varchar, 'withdrawn '::varchar OPERATOR(pg_catalog.||) @token::varchar,
    (1000000 OPERATOR(pg_catalog.*) extract(epoch FROM pg_catalog.clock_timestamp()))::bigint,
    pg_catalog.clock_timestamp(), pg_catalog.clock_timestamp()
ON CONFLICT (key) DO UPDATE SET token = excluded.token, ends_at = pg_catalog.clock_timestamp()
WHERE l.token IS NULL OR l.token OPERATOR(pg_catalog.=) @token::varchar OR l.ends_at OPERATOR(pg_catalog.<=) pg_catalog.clock_timestamp();

-- name: RefreshLease :execrows
-- Begins the lease of the key anew, if the token has it.
UPDATE public.lock_leases
SET ends_at = (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.+) (@lease::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))
WHERE key OPERATOR(pg_catalog.=) @key::bigint AND token OPERATOR(pg_catalog.=) @token::varchar;

-- name: ReleaseLease :execrows
-- Frees the key, if the token has it.
UPDATE public.lock_leases SET token = NULL
WHERE key OPERATOR(pg_catalog.=) @key::bigint AND token OPERATOR(pg_catalog.=) @token::varchar;

-- name: PruneLeases :execrows
-- Deletes the rows whose last lease ended more than so many microseconds ago.
DELETE FROM public.lock_leases
WHERE ends_at OPERATOR(pg_catalog.<) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) (@unused::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'));
