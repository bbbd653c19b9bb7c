-- What sqlc does not see in migrations/, since a DO block does it there.
ALTER TABLE lock_audit ADD COLUMN ended_by text;
ALTER TABLE lock_audit ADD COLUMN succeeded_at timestamptz;
