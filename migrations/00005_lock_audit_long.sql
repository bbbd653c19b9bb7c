-- +goose NO TRANSACTION
-- +goose Up
-- Who held what at a moment. An entry of lock_audit_span costs five times as much as
-- all others of a row together, so only the locks that were held for more than ten
-- seconds have one now. The others are found by when they began. What an interrupted
-- build has left is dropped as in the second migration, and as there it fails before
-- it finds the audit of a later schema.
-- +goose StatementBegin
DO $$
DECLARE
    before varchar := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '50ms', true);
    FOR attempt IN 1..600 LOOP
        BEGIN
            EXECUTE pg_catalog.format('
                LOCK TABLE %1$I.lock_audit IN ACCESS SHARE MODE;
                DROP INDEX IF EXISTS %1$I.lock_audit_span_new;
            ', pg_catalog.current_schema());
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
CREATE INDEX CONCURRENTLY lock_audit_span_new ON lock_audit USING gist (pg_catalog.tstzrange(acquired_at, released_at))
    WHERE (released_at OPERATOR(pg_catalog.-) acquired_at) OPERATOR(pg_catalog.>) interval '10 seconds';
-- +goose StatementBegin
DO $$
DECLARE
    before varchar := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '50ms', true);
    FOR attempt IN 1..600 LOOP
        BEGIN
            EXECUTE pg_catalog.format('
                DROP INDEX IF EXISTS %1$I.lock_audit_span;
                ALTER INDEX %1$I.lock_audit_span_new RENAME TO lock_audit_span;
            ', pg_catalog.current_schema());
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

-- +goose Down
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE pg_catalog.format('
        LOCK TABLE %1$I.lock_audit IN ACCESS SHARE MODE;
        DROP INDEX IF EXISTS %1$I.lock_audit_span_new;
    ', pg_catalog.current_schema());
END
$$;
-- +goose StatementEnd
CREATE INDEX CONCURRENTLY lock_audit_span_new ON lock_audit USING gist (pg_catalog.tstzrange(acquired_at, released_at)) WHERE released_at IS NOT NULL;
-- +goose StatementBegin
DO $$
DECLARE
    before varchar := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '50ms', true);
    FOR attempt IN 1..600 LOOP
        BEGIN
            EXECUTE pg_catalog.format('
                DROP INDEX IF EXISTS %1$I.lock_audit_span;
                ALTER INDEX %1$I.lock_audit_span_new RENAME TO lock_audit_span;
            ', pg_catalog.current_schema());
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
