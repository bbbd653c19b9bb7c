-- +goose Up
-- When the work that the lock guarded was done, by what the holder says: swanlock
-- run --once-every. Null: it failed, was cut short, or nobody said. To add it takes a
-- moment in which nobody else may use the table, as in the second migration.
-- +goose StatementBegin
DO $$
DECLARE
    before varchar := pg_catalog.current_setting('lock_timeout');
BEGIN
    PERFORM pg_catalog.set_config('lock_timeout', '50ms', true);
    FOR attempt IN 1..600 LOOP
        BEGIN
            EXECUTE pg_catalog.format('ALTER TABLE %1$I.lock_audit ADD COLUMN IF NOT EXISTS succeeded_at timestamptz', pg_catalog.current_schema());
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
    EXECUTE pg_catalog.format('ALTER TABLE %1$I.lock_audit DROP COLUMN IF EXISTS succeeded_at', pg_catalog.current_schema());
END
$$;
-- +goose StatementEnd
