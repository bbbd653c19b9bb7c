package redislock

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
)

// ErrQuarantined says that too few servers vote, since others have restarted less
// than the longest TTL ago, and may have forgotten locks. Nobody knows whether the
// lock is held. Acquire waits instead.
var ErrQuarantined = errors.New("redislock: servers that have restarted do not vote yet")

// errSplit says that nobody got a quorum of the votes, as when several ask at
// once.
var errSplit = errors.New("redislock: the votes are split")

// A vote is what acquire.lua returns.
type vote struct {
	what  string
	by    string        // who holds the lock, or waits for it
	left  time.Duration // until that may change by itself; 0: unknown
	fence uint64
}

func reply(r answer) (v vote, err error) {
	if r.err != nil {
		return v, r.err
	}
	parts, _ := r.value.([]any)
	text := func(i int) string {
		if i >= len(parts) {
			return ""
		}
		s, _ := parts[i].(string)
		return s
	}
	v.what = text(0)
	if v.what == "granted" {
		v.fence, err = strconv.ParseUint(text(1), 10, 64)
		return v, err
	}
	v.by = text(1)
	if len(parts) > 2 {
		left, _ := parts[2].(int64)
		v.left = time.Duration(max(left, 0)) * time.Millisecond
	}
	if v.what == "" {
		err = fmt.Errorf("redislock: the script answers %v", r.value)
	}
	return v, err
}

// A heldError says who has the lock.
type heldError struct{ vote }

func (e *heldError) Error() string {
	if e.what == "waited" {
		return swanlock.ErrNotAcquired.Error() + ": others wait for it"
	}
	_, owner, _ := strings.Cut(e.by, " ")
	return fmt.Sprintf("%v: held by %q", swanlock.ErrNotAcquired, owner)
}

func (e *heldError) Unwrap() error { return swanlock.ErrNotAcquired }

// A quarantineError says for how long servers do not vote.
type quarantineError struct{ left time.Duration }

func (e *quarantineError) Error() string {
	return fmt.Sprintf("%v: for %v", ErrQuarantined, e.left)
}

func (e *quarantineError) Unwrap() error { return ErrQuarantined }
