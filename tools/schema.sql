-- What sqlc does not see in migrations/, since a DO block does it there; and a
-- column that every table has.
ALTER TABLE lock_audit ADD COLUMN ended_by text;
ALTER TABLE lock_audit ADD COLUMN succeeded_at timestamptz;
ALTER TABLE lock_audit ADD COLUMN xmax xid;
