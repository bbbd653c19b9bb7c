-- +goose NO TRANSACTION
-- +goose Up
-- Who held what at a moment. An entry of lock_audit_span costs five times as much as
-- all others of a row together, so only the locks that were held for more than ten
-- seconds have one now. The others are found by when they began.
DROP INDEX CONCURRENTLY IF EXISTS lock_audit_span_new;
CREATE INDEX CONCURRENTLY lock_audit_span_new ON lock_audit USING gist (pg_catalog.tstzrange(acquired_at, released_at))
    WHERE (released_at OPERATOR(pg_catalog.-) acquired_at) OPERATOR(pg_catalog.>) interval '10 seconds';
DROP INDEX CONCURRENTLY IF EXISTS lock_audit_span;
ALTER INDEX lock_audit_span_new RENAME TO lock_audit_span;

-- +goose Down
DROP INDEX CONCURRENTLY IF EXISTS lock_audit_span_new;
CREATE INDEX CONCURRENTLY lock_audit_span_new ON lock_audit USING gist (pg_catalog.tstzrange(acquired_at, released_at)) WHERE released_at IS NOT NULL;
DROP INDEX CONCURRENTLY IF EXISTS lock_audit_span;
ALTER INDEX lock_audit_span_new RENAME TO lock_audit_span;
