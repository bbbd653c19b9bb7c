package pglock

import (
	"errors"
	"fmt"

	"github.com/swanlake-io/swanlock"
)

// A Key is the number under which PostgreSQL locks a target: the argument of
// pg_advisory_lock. The keys belong to a whole database, and every other
// program that takes 64-bit advisory locks there shares them.
type Key = swanlock.Key

// KeyOf returns the key of a target. It is swanlock.KeyOf.
func KeyOf(target string) Key { return swanlock.KeyOf(target) }

// A request is what a caller asks for, after it was checked.
type request struct {
	swanlock.Options
	target string
	key    Key
	line   int64 // the hash of the line that a try does not overtake; 0: it overtakes any
}

// check returns the request for target, or an error if it is not valid.
func check(target string, opts []swanlock.Option) (request, error) {
	o, err := swanlock.NewOptions(target, opts...)
	if err == nil && o.TTL > maxTTL {
		err = fmt.Errorf("pglock: acquire %s: the TTL %v is more than PostgreSQL keeps (%v): %w", quote(target), o.TTL, maxTTL, errors.ErrUnsupported)
	}
	return request{Options: o, target: target, key: KeyOf(target)}, err
}
