package pglock

import "github.com/swanlake-io/swanlock"

// A Key is the number under which PostgreSQL locks a target: the argument of
// pg_advisory_lock. The keys belong to a whole database, and every other
// program that takes 64-bit advisory locks there shares them.
type Key = swanlock.Key

// KeyOf returns the key of a target. It is swanlock.KeyOf.
func KeyOf(target string) Key { return swanlock.KeyOf(target) }
