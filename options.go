package swanlock

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// An Option sets how a lock is acquired. A nil Option does nothing.
type Option func(*Options)

// Options is what the options of one acquire add up to. Callers use the With
// functions; a Locker calls NewOptions.
type Options struct {
	TTL         time.Duration // 0: none
	Owner       string        // never empty
	Shared      bool
	Fence       bool
	AutoRefresh bool
}

// WithTTL makes the lock end by itself when it was not refreshed for ttl, so
// that a holder that hangs, or that the network cut off, does not keep it. It
// is a millisecond or more; fractions of one count on the holder's side only.
func WithTTL(ttl time.Duration) Option { return func(o *Options) { o.TTL = ttl } }

// WithOwner names the holder, for Info and the audit. The default is host/pid.
func WithOwner(owner string) Option { return func(o *Options) { o.Owner = owner } }

// WithShared takes the lock as a reader: any number of readers hold it
// together, and no writer with them. Shared locks have no fence.
func WithShared() Option { return func(o *Options) { o.Shared = true } }

// WithFence gives the lock a fencing token (Info.Fence): a number that is
// higher than that of any earlier exclusive grant of the target. Pass it with
// every write, and let the storage refuse a lower one than it has seen: that
// keeps out a holder that was paused past its TTL and does not know it yet.
// See Kleppmann, "How to do distributed locking" (2016).
//
// Fences rise through a crash of the server, since the grant is flushed to disk
// first, unless synchronous_commit is off or the grant is in a transaction that
// is not committed yet. A failover keeps them rising if replication is
// synchronous; a standby that was behind gives out again the fences that it has
// not received. https://www.postgresql.org/docs/current/warm-standby.html
func WithFence() Option { return func(o *Options) { o.Fence = true } }

// WithAutoRefresh refreshes the lock in the background, every third of its TTL
// or, if that is sooner, of what its session can be idle for, until it is
// released or lost. It needs WithTTL.
func WithAutoRefresh() Option { return func(o *Options) { o.AutoRefresh = true } }

// NewOptions applies opts and checks them and target, so that every Locker
// refuses the same input with the same words.
func NewOptions(target string, opts ...Option) (Options, error) {
	var o Options
	for _, opt := range opts {
		if opt != nil {
			opt(&o)
		}
	}
	if target == "" {
		return o, errors.New("swanlock: the target is empty: name what is to be locked")
	}
	if err := checkText("target", target); err != nil {
		return o, err
	}
	if o.Owner == "" {
		o.Owner = defaultOwner()
	} else if err := checkText("owner", o.Owner); err != nil {
		return o, err
	}
	switch {
	case o.TTL < 0:
		return o, fmt.Errorf("swanlock: the TTL %v is negative: leave WithTTL out for none", o.TTL)
	case o.TTL > 0 && o.TTL < time.Millisecond:
		return o, fmt.Errorf("swanlock: the TTL %v is under a millisecond", o.TTL)
	case o.AutoRefresh && o.TTL == 0:
		return o, errors.New("swanlock: WithAutoRefresh needs WithTTL: it refreshes every third of the TTL")
	case o.Shared && o.Fence:
		return o, fmt.Errorf("swanlock: a shared lock has no fence: leave out WithFence or WithShared: %w", errors.ErrUnsupported)
	}
	return o, nil
}

// checkText keeps out what PostgreSQL's text cannot hold.
func checkText(what, s string) error {
	if strings.IndexByte(s, 0) >= 0 {
		return fmt.Errorf("swanlock: the %s has a NUL byte", what)
	}
	if !utf8.ValidString(s) {
		return fmt.Errorf("swanlock: the %s is not valid UTF-8", what)
	}
	return nil
}

var defaultOwner = sync.OnceValue(func() string {
	host, err := os.Hostname()
	if err != nil || host == "" || checkText("host", host) != nil {
		host = "localhost"
	}
	return fmt.Sprintf("%s/%d", host, os.Getpid())
})
