package main

import (
	"context"
	"fmt"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

const keyHelp = `Usage: swanlock key TARGET

Prints the 64-bit advisory key of TARGET, in decimal: the number that every
swanlock and SwanLake process locks for this target.

  swanlock key /lake/q.db

To see the holder:

  SELECT pid, mode FROM pg_locks
  WHERE locktype = 'advisory' AND objsubid = 1 AND granted
    AND (classid::bigint << 32) | objid::bigint = KEY;

"a/b", "a//b" and "a/./b" are one target, as they are one path.
`

func cmdKey(_ context.Context, s streams, args []string) error {
	args, err := parse(newFlags("key"), args, 1, 1)
	if err != nil {
		return err
	}
	if _, err := swanlock.NewOptions(args[0]); err != nil {
		return failf(exitUsage, "key: %s", plain(err))
	}
	return print(s.out, fmt.Sprintf("%d\n", pglock.KeyOf(args[0])))
}
