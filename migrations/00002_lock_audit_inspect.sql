-- +goose NO TRANSACTION
-- +goose Up
-- Who ended a lock whose end_reason is killed: what swanlock kill was told. To add
-- it takes a moment in which nobody else may use the table. It is tried for 50 ms
-- at a time, so that acquires do not queue up behind a long transaction's lock. If
-- this schema has no lock_audit any more, it fails before a later one of the
-- search_path is found below, which may have an audit of its own.
-- +goose StatementBegin
DO $$
DECLARE
    before varchar := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '50ms', true);
    FOR attempt IN 1..600 LOOP
        BEGIN
            EXECUTE pg_catalog.format('ALTER TABLE %1$I.lock_audit ADD COLUMN IF NOT EXISTS ended_by text', pg_catalog.current_schema());
            PERFORM pg_catalog.set_config('lock_timeout', before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 600 THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- An index that an interrupted build has left is built anew. It is dropped in this
-- schema alone, too.
-- +goose StatementBegin
DO $$
DECLARE
    before varchar := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '50ms', true);
    FOR attempt IN 1..600 LOOP
        BEGIN
            EXECUTE pg_catalog.format('DROP INDEX IF EXISTS %1$I.lock_audit_time, %1$I.lock_audit_span', pg_catalog.current_schema());
            PERFORM pg_catalog.set_config('lock_timeout', before, true);
            RETURN;
        EXCEPTION WHEN lock_not_available THEN
            IF attempt = 600 THEN
                RAISE;
            END IF;
        END;
        PERFORM pg_catalog.pg_sleep(0.05);
    END LOOP;
END
$$;
-- +goose StatementEnd

-- The history by time, a page at a time, and what is old enough to be pruned.
CREATE INDEX CONCURRENTLY lock_audit_time ON lock_audit (acquired_at, id);

-- Who held what at a moment. Open rows are not in it, so an acquire does not pay.
CREATE INDEX CONCURRENTLY lock_audit_span ON lock_audit USING gist (pg_catalog.tstzrange(acquired_at, released_at)) WHERE released_at IS NOT NULL;

-- +goose Down
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE pg_catalog.format('
        ALTER TABLE %1$I.lock_audit DROP COLUMN IF EXISTS ended_by;
        DROP INDEX IF EXISTS %1$I.lock_audit_span, %1$I.lock_audit_time;
    ', pg_catalog.current_schema());
END
$$;
-- +goose StatementEnd
