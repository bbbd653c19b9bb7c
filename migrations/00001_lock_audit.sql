-- +goose Up
CREATE TABLE lock_audit (
    id            bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    target        text        NOT NULL,
    key           bigint      NOT NULL,
    owner         text        NOT NULL,
    ttl_ms        bigint      NOT NULL, -- 0: none
    mode          text        NOT NULL CHECK (mode IN ('exclusive', 'shared')),
    fence         bigint,               -- shared locks have none
    backend_pid   integer     NOT NULL,
    backend_start timestamptz NOT NULL,
    client_addr   inet,                 -- null: a Unix-domain socket
    acquired_at   timestamptz NOT NULL,
    refreshed_at  timestamptz NOT NULL,
    released_at   timestamptz,          -- null: held, or its holder died and nobody came after
    end_reason    text CHECK (end_reason IN ('released', 'expired', 'lost', 'killed')),
    CHECK ((released_at IS NULL) = (end_reason IS NULL)),
    CHECK (released_at >= acquired_at)
);

-- What the next holder of a key closes, and what is held now.
CREATE INDEX lock_audit_open ON lock_audit (key) WHERE released_at IS NULL;
-- Who held this key, and when.
CREATE INDEX lock_audit_key ON lock_audit (key, acquired_at);

-- +goose Down
-- What is removed is that of this schema alone, here and in the others: a later one
-- of the search_path may have an audit of its own.
-- +goose StatementBegin
DO $$
BEGIN
    EXECUTE pg_catalog.format('DROP TABLE %1$I.lock_audit', pg_catalog.current_schema());
END
$$;
-- +goose StatementEnd
