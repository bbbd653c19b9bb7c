// Package locktest checks that a swanlock.Locker keeps the contract. Every
// locker of this module passes it, and a new one passes it before it is used:
//
//	func TestConformance(t *testing.T) {
//		locktest.Run(t, func(t *testing.T) swanlock.Locker { return newRedisLocker(t, server) },
//			locktest.WithoutShared("SET NX knows one holder only"))
//	}
//
// Each case says, when it fails, why it matters. None asserts that something
// was fast, and those that must race a TTL try again, with a longer one, when the
// machine stalled or the backend was slow.
// Run the suite with -race.
package locktest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
)

// An Option tells Run what a backend cannot do, or does beyond the contract.
type Option func(*config)

// WithoutTTL says why the backend has no TTL, and so no auto-refresh. As with
// the other Without options, Run then checks that the option is refused with
// errors.ErrUnsupported and that nothing is held.
func WithoutTTL(reason string) Option {
	return func(c *config) { c.without[ttl], c.without[autoRefresh] = reason, reason }
}

// WithoutAutoRefresh says why the backend refreshes nothing in the background.
func WithoutAutoRefresh(reason string) Option {
	return func(c *config) { c.without[autoRefresh] = reason }
}

// WithoutFence says why the backend gives no fencing tokens.
func WithoutFence(reason string) Option { return func(c *config) { c.without[fence] = reason } }

// WithoutShared says why the backend has no readers.
func WithoutShared(reason string) Option { return func(c *config) { c.without[shared] = reason } }

// Pooled says why no target is ever ErrAlreadyHeld: each lock of one locker
// has, as far as a caller can see, a session of its own. Without Pooled, each
// locker is one session.
func Pooled(reason string) Option { return func(c *config) { c.pooled = &reason } }

// Fair says that waiters are granted the lock in the order in which they
// came, and that a writer does not wait for readers that came after it.
func Fair() Option { return func(c *config) { c.fair = true } }

// ShortTTL sets the TTL of the locks that the suite lets expire; the default is
// a second. It should be far longer than the backend's round trip, and than a
// delay by the machine's scheduler, and it is the backend's smallest TTL or more.
// Most TTLs of the suite are once or twice as long; one is no multiple of it, as
// for a backend that counts in whole seconds. The whole run takes about twenty
// times that TTL.
func ShortTTL(d time.Duration) Option { return func(c *config) { c.ttl = d } }

// FreesLate says why a lock whose TTL ran out is free for others only after
// factor times the TTL. The default is 1, and then the suite checks that it is
// free soon after.
func FreesLate(factor float64, reason string) Option {
	return func(c *config) { c.late, c.lateReason = factor, &reason }
}

// KeptAlive says why a lock without a TTL has a lease all the same, which is
// refreshed in the background, and so has a Deadline.
func KeptAlive(reason string) Option { return func(c *config) { c.keptAlive = &reason } }

// LosePlaces gives the suite a way to end the places in line of all that wait
// for a target, as when their sessions end. A waiter may get a new place, or
// return an error.
func LosePlaces(lose func(t *testing.T, target string)) Option {
	return func(c *config) { c.losePlaces = lose }
}

// Lose gives the suite a way to take a lock from its holder behind its back:
// to end the session, to delete the row. It returns once the lock is gone.
func Lose(lose func(t *testing.T, held swanlock.DistributedLock)) Option {
	return func(c *config) { c.lose = lose }
}

// InBubble runs each case in a bubble of testing/synctest, where time passes
// at once and exactly. It is for lockers that live in this process alone:
// their newLocker must make whatever they share anew for each t.
func InBubble() Option { return func(c *config) { c.bubble = true } }

// Run runs every case as a subtest of t.
//
// It calls newLocker for each locker it needs, several times a case with the
// same t, and for a few cases at the same time. Lockers of one t must exclude
// each other: they share a database, or whatever the backend has, but no
// session. What newLocker opens it closes in t.Cleanup; by then every lock has
// been released. Targets are random, so that the suite may run on a server that
// others use.
//
// The race detector does not know of servers and files. If a lock can pass from
// one goroutine to another without a mutex or a socket between them, as by flock,
// it reports a race in the case Storm that is none: have the goroutines of one
// process pass through a mutex for each target.
func Run(t *testing.T, newLocker func(t *testing.T) swanlock.Locker, opts ...Option) {
	t.Helper()
	cfg, err := newConfig(opts)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	defer all.Wait()
	room := make(chan struct{}, atOnce)
	for _, c := range cases {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			t.Run(c.name, func(t *testing.T) {
				if reason := cfg.skips(c); reason != "" {
					t.Skip(reason)
				}
				run := func(t *testing.T) {
					runCase(t, t, cfg, c, func() swanlock.Locker { return newLocker(t) })
				}
				if cfg.bubble {
					synctest.Test(t, run)
				} else {
					run(t)
				}
			})
		})
	}
}

// atOnce is how many cases Run runs at the same time. They mostly wait.
const atOnce = 4

// A feature is what a case needs and a backend may lack.
type feature string

const (
	ttl         feature = "TTL"
	autoRefresh feature = "auto-refresh"
	fence       feature = "fence"
	shared      feature = "shared locks"
	fair        feature = "arrival order"
	loss        feature = "Lose function"
	placeLoss   feature = "LosePlaces function"
)

type config struct {
	without    map[feature]string // and the reason
	pooled     *string
	fair       bool
	ttl        time.Duration
	late       float64
	lateReason *string
	keptAlive  *string
	bubble     bool
	lose       func(*testing.T, swanlock.DistributedLock)
	losePlaces func(t *testing.T, target string)
}

func newConfig(opts []Option) (*config, error) {
	cfg := &config{without: make(map[feature]string), ttl: time.Second, late: 1}
	for _, opt := range opts {
		if opt != nil {
			opt(cfg)
		}
	}
	for f, reason := range cfg.without {
		if reason == "" {
			return nil, fmt.Errorf("locktest: no reason given why there is no %s", f)
		}
	}
	for option, reason := range map[string]*string{"Pooled": cfg.pooled, "FreesLate": cfg.lateReason, "KeptAlive": cfg.keptAlive} {
		if reason != nil && *reason == "" {
			return nil, fmt.Errorf("locktest: no reason given for %s", option)
		}
	}
	if cfg.late < 1 {
		return nil, fmt.Errorf("locktest: FreesLate %v: a lock that is free before its TTL ran out has two holders", cfg.late)
	}
	if cfg.ttl < 20*time.Millisecond {
		return nil, fmt.Errorf("locktest: ShortTTL %v: no scheduler is that exact; use 20ms or more", cfg.ttl)
	}
	return cfg, nil
}

// skips says why c is not for this backend; empty if it is.
func (cfg *config) skips(c testCase) string {
	for _, f := range c.needs {
		reason, missing := cfg.without[f]
		switch {
		case missing:
			return fmt.Sprintf("the backend has no %s: %s", f, reason)
		case f == fair && !cfg.fair, f == loss && cfg.lose == nil, f == placeLoss && cfg.losePlaces == nil:
			return fmt.Sprintf("the backend promises no %s", f)
		}
	}
	return ""
}

// A testCase is one promise of the contract.
type testCase struct {
	name  string
	why   string // what breaks in a user's program if this does
	needs []feature
	run   func(*env)
}

var cases = concat(exclusionCases, keyCases, releaseCases, waitCases, sharedCases, fenceCases, leaseCases, deadlineCases,
	lossCases, inputCases, concurrencyCases, manyCases, doCases)

func concat(lists ...[]testCase) []testCase {
	var all []testCase
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// tb is what a case needs of *testing.T, so that the suite's own tests can
// watch cases fail.
type tb interface {
	Helper()
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
	Failed() bool
}

// runCase runs a case as a part of test. Its findings go to t.
func runCase(t tb, test *testing.T, cfg *config, c testCase, newLocker func() swanlock.Locker) {
	ctx, cancel := context.WithTimeout(context.Background(), 8*cfg.patience())
	own := *cfg // of which a case changes the TTL
	e := &env{tb: t, config: &own, test: test, newLocker: newLocker, ctx: ctx, cancel: cancel, watch: watchScheduler}
	defer func() {
		e.close()
		if t.Failed() {
			t.Logf("why it matters: %s", c.why)
		}
	}()
	c.run(e)
}
