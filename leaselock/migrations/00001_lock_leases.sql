-- +goose Up
-- A row for each key that was ever locked, until leaselock's Prune deletes it.
-- Half of each page is left free, and no index has a column that changes, so that
-- PostgreSQL updates rows in place (HOT) and cleans up without VACUUM.
CREATE TABLE lock_leases (
    key         bigint      PRIMARY KEY, -- the target's: see swanlock key
    target      text        NOT NULL,    -- as its last holder spelled it
    owner       text        NOT NULL,    -- the last holder's name
    token       text,                    -- the holder's; null: free
    fence       bigint      NOT NULL,    -- the last that was given
    acquired_at timestamptz NOT NULL,    -- the last time
    ends_at     timestamptz NOT NULL     -- free from then on, whatever the token
) WITH (fillfactor = 50);

-- +goose Down
-- The table of this schema alone: a later one of the search_path may have its own.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE pg_catalog.format('DROP TABLE %1$I.lock_leases', pg_catalog.current_schema());
END
$$;
-- +goose StatementEnd
