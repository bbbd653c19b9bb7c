-- +goose Up
-- The fence guard (docs/fences.md). It does nothing until a table of yours has
-- the trigger lock_fenced. The roles that write to such a table need the rights
-- to SELECT, INSERT and UPDATE here.
CREATE TABLE IF NOT EXISTS lock_fences (
    key     bigint      PRIMARY KEY, -- the target's: see swanlock key
    fence   bigint      NOT NULL,    -- the highest that was seen
    seen_at timestamptz NOT NULL
);

-- The functions name that table with its schema, whatever the search_path of
-- those who call them.
-- +goose StatementBegin
DO $migration$
BEGIN
    EXECUTE pg_catalog.format($define$
-- Lets the rest of the transaction write to tables with the trigger lock_fenced,
-- on behalf of the holder who was given this fence for this key. It fails with
-- the SQLSTATE SWL01 if a higher fence was seen. Until the transaction ends,
-- callers with another fence for the key wait.
CREATE OR REPLACE FUNCTION %1$I.lock_fence(key bigint, fence bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    seen   bigint;
    fenced text := coalesce(nullif(current_setting('swanlock.fenced', true), ''), ' ');
BEGIN
    IF lock_fence.key IS NULL OR lock_fence.fence IS NULL OR lock_fence.fence <= 0 THEN
        RAISE EXCEPTION 'lock_fence wants a key and a fence, which is above 0' USING ERRCODE = '22023',
            HINT = 'A lock has a fence if it was acquired with WithFence, or exclusively with WithAudit.';
    END IF;
    -- The row is locked also when its fence is not raised.
    INSERT INTO %1$I.lock_fences AS f VALUES (lock_fence.key, lock_fence.fence, clock_timestamp())
        ON CONFLICT ON CONSTRAINT lock_fences_pkey DO UPDATE SET fence = excluded.fence, seen_at = excluded.seen_at WHERE f.fence < excluded.fence;
    IF NOT FOUND THEN
        SELECT f.fence INTO seen FROM %1$I.lock_fences f WHERE f.key = lock_fence.key;
        IF seen > lock_fence.fence THEN
            RAISE EXCEPTION 'the fence %% is older than %%, which was seen for the key %%', lock_fence.fence, seen, lock_fence.key USING ERRCODE = 'SWL01',
                HINT = 'The lock was lost, and another holder has written since.';
        END IF;
    END IF;
    IF strpos(fenced, ' ' || lock_fence.key || ' ') = 0 THEN
        PERFORM set_config('swanlock.fenced', fenced || lock_fence.key || ' ', true);
    END IF;
    RETURN true;
END $body$;

-- Refuses a write in a transaction that has not called lock_fence, with the
-- SQLSTATE SWL02. The trigger's argument, if it has one, is the key for which
-- that must have been; without one any key will do.
CREATE OR REPLACE FUNCTION %1$I.lock_fenced() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $body$
DECLARE
    fenced text := coalesce(current_setting('swanlock.fenced', true), '');
BEGIN
    IF fenced = '' OR TG_NARGS > 0 AND strpos(fenced, ' ' || TG_ARGV[0] || ' ') = 0 THEN
        RAISE EXCEPTION 'a write to %% needs a fence%%', TG_RELID::regclass, CASE WHEN TG_NARGS > 0 THEN ' for the key ' || TG_ARGV[0] ELSE '' END
            USING ERRCODE = 'SWL02', HINT = 'Call lock_fence(key, fence) in the same transaction, or in the FROM of the statement.';
    END IF;
    IF TG_LEVEL = 'STATEMENT' THEN
        RETURN NULL;
    ELSIF TG_OP = 'DELETE' THEN
        RETURN old;
    END IF;
    RETURN new;
END $body$;
    $define$, pg_catalog.current_schema());
END
$migration$;
-- +goose StatementEnd

-- +goose Down
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE pg_catalog.format('
        DROP FUNCTION %1$I.lock_fenced();
        DROP FUNCTION %1$I.lock_fence(bigint, bigint);
        DROP TABLE %1$I.lock_fences;
    ', pg_catalog.current_schema());
END
$$;
-- +goose StatementEnd
