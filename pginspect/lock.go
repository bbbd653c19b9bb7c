package pginspect

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Kind tells what is known of a lock.
type Kind string

const (
	// Audited locks have a row in the audit.
	Audited Kind = "audited"
	// Named locks have no row, but the audit knows their key from another hold.
	Named Kind = "named"
	// Keyed locks have one number of 64 bits, as swanlock's and SwanLake's do.
	// Whether they are theirs cannot be told from outside.
	Keyed Kind = "keyed"
	// Foreign locks have two numbers of 32 bits, and are none of swanlock's.
	Foreign Kind = "foreign"
)

// A Session is the PostgreSQL session of a holder or waiter. All but PID is zero
// where this role may not see it.
type Session struct {
	PID         int       `json:"pid"`
	Started     time.Time `json:"started,omitzero"`
	Role        string    `json:"role,omitempty"`
	Application string    `json:"application,omitempty"`
	Client      string    `json:"client,omitempty"` // an IP address; "": a Unix-domain socket
	State       string    `json:"state,omitempty"`  // as in pg_stat_activity
}

// A Lock is an advisory lock that a session holds.
type Lock struct {
	Kind     Kind   `json:"kind"`
	Target   string `json:"target,omitempty"` // "": not known
	Key      int64  `json:"key"`              // of a Foreign one, both numbers
	Database string `json:"database"`
	Here     bool   `json:"here"` // it is the database that was asked
	Shared   bool   `json:"shared"`
	Session
	Waiters []Waiter  `json:"waiters,omitempty"` // in their order; all holders of a key have the same
	SeenAt  time.Time `json:"seen_at"`           // by the server's clock

	// What follows is from the audit, and zero without a row.
	AuditID     int64         `json:"audit_id,omitempty"`
	Owner       string        `json:"owner,omitempty"`
	Fence       uint64        `json:"fence,omitempty"`
	TTL         time.Duration `json:"-"` // 0: none
	AcquiredAt  time.Time     `json:"acquired_at,omitzero"`
	RefreshedAt time.Time     `json:"refreshed_at,omitzero"`

	// HeldSince is AcquiredAt, or when a Watcher first saw the lock: then it has
	// been held for longer than that.
	HeldSince time.Time `json:"held_since,omitzero"`
}

// HeldFor returns for how long the lock was held when it was seen, and whether
// that is exact. If not, it is a lower bound.
func (l Lock) HeldFor() (d time.Duration, exact bool) {
	if l.HeldSince.IsZero() {
		return 0, false
	}
	return max(0, l.SeenAt.Sub(l.HeldSince)), !l.AcquiredAt.IsZero()
}

// TTLLeft returns how long the lock lives without a refresh, and false if it has
// no TTL, or none that is known.
func (l Lock) TTLLeft() (time.Duration, bool) {
	if l.TTL == 0 {
		return 0, false
	}
	return max(0, l.RefreshedAt.Add(l.TTL).Sub(l.SeenAt)), true
}

// Name returns the target, or what else names the lock: "key 42", or "pair 1, 2"
// for a Foreign one.
func (l Lock) Name() string { return nameOf(l.Kind, l.Target, l.Key) }

// Matches reports whether the lock's target matches a pattern of [Query]. A
// pattern without wildcards also matches by its key, in the database that was
// asked, so that the lock of a target is found without an audit.
func (l Lock) Matches(pattern string) bool {
	return matches(pattern, l.Here, l.Kind, l.Target, l.Key)
}

// MarshalJSON also writes held_seconds, ttl_seconds and ttl_left_seconds.
func (l Lock) MarshalJSON() ([]byte, error) {
	type plain Lock
	out := struct {
		Name string `json:"name"`
		plain
		Held *float64 `json:"held_seconds,omitempty"`
		TTL  float64  `json:"ttl_seconds,omitempty"`
		Left *float64 `json:"ttl_left_seconds,omitempty"`
	}{Name: l.Name(), plain: plain(l), TTL: l.TTL.Seconds()}
	if d, _ := l.HeldFor(); !l.HeldSince.IsZero() {
		s := d.Seconds()
		out.Held = &s
	}
	if d, ok := l.TTLLeft(); ok {
		s := d.Seconds()
		out.Left = &s
	}
	return json.Marshal(out)
}

// A Waiter is a session's wait for a lock.
type Waiter struct {
	Place    int    `json:"place"`            // 1 is next
	Target   string `json:"target,omitempty"` // "": not known
	Key      int64  `json:"key"`              // 0 with a Kind of "": not known
	Kind     Kind   `json:"kind,omitempty"`
	Database string `json:"database"`
	Here     bool   `json:"here"` // it is the database that was asked
	Session

	// InLine says that the waiter has a ticket in swanlock's line, rather than
	// being in the server's own queue for a lock. See docs/design.md, The line.
	InLine bool `json:"in_line"`

	// WaitingSince is when the waiter is known to have waited already. The wait
	// may be longer: the server does not say when a place in line was taken. It
	// is exact for a waiter that is not InLine, and for one that a Watcher saw
	// come, within the time between two looks. It is zero if nothing is known.
	WaitingSince time.Time `json:"waiting_since,omitzero"`
	SeenAt       time.Time `json:"seen_at"`

	line   line
	number int64
}

// WaitingFor returns for how long the waiter has waited at least.
func (w Waiter) WaitingFor() time.Duration {
	if w.WaitingSince.IsZero() {
		return 0
	}
	return max(0, w.SeenAt.Sub(w.WaitingSince))
}

// Name returns what the waiter waits for, as [Lock.Name] does.
func (w Waiter) Name() string { return nameOf(w.Kind, w.Target, w.Key) }

// Matches is [Lock.Matches] for what the waiter waits for.
func (w Waiter) Matches(pattern string) bool {
	return matches(pattern, w.Here, w.Kind, w.Target, w.Key)
}

// MarshalJSON also writes waiting_seconds.
func (w Waiter) MarshalJSON() ([]byte, error) {
	type plain Waiter
	return json.Marshal(struct {
		Name string `json:"name"`
		plain
		For float64 `json:"waiting_seconds"`
	}{w.Name(), plain(w), w.WaitingFor().Seconds()})
}

func nameOf(k Kind, target string, key int64) string {
	switch {
	case target != "":
		return target
	case k == Foreign:
		return fmt.Sprintf("pair %d, %d", int32(key>>32), int32(key))
	case k == "":
		return "(a lock that nobody holds)"
	}
	return fmt.Sprintf("key %d", key)
}

func matches(pattern string, here bool, k Kind, target string, key int64) bool {
	if pattern == "" || target != "" && Match(pattern, target) {
		return true
	}
	name, plain := unescaped(pattern)
	return plain && here && k != Foreign && k != "" && int64(swanlock.KeyOf(name)) == key
}
