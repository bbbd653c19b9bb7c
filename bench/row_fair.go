package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
)

// fairRow sets 8 contenders on one key. Each lets go at once and asks again.
func fairRow(h *harness) {
	const n = 8
	db := h.open("pgx", "")
	defer db.Close()
	bg := context.Background()
	conns := connect(db, 2*n)
	defer disconnect(conns)
	raw, own := conns[:n], conns[n:]

	session, closeSessions := sessions(own)
	pool, closePool := pools(db, 1)
	many, closePools := pools(db, n)
	lines := []*contest{
		{name: "swanlock-sessions", acquirers: waits(h.ctx, session, oneTarget("sessions", n))},
		{name: "swanlock-pool", acquirers: waits(h.ctx, shared(pool[0], n), oneTarget("pool", n))},
		{name: "swanlock-8-pools", acquirers: waits(h.ctx, many, oneTarget("pools", n))},
		{name: "blocking", acquirers: blocking(h.ctx, raw)},
		{name: "blocking-background", acquirers: blocking(bg, raw)},
	}
	if h.redis != "" {
		client := h.dialRedis(n)
		defer client.Close()
		backoff := func(d time.Duration) *redislock.Options {
			return &redislock.Options{RetryStrategy: redislock.LinearBackoff(d)}
		}
		everyMs := redsync.WithRetryDelay(time.Millisecond)
		patient := redsync.WithTries(1_000_000) // it has no other way to wait
		lines = append(lines,
			&contest{name: "redislock-100ms", acquirers: redislocks(h.ctx, client, oneTarget("slow", n), backoff(100*time.Millisecond))},
			&contest{name: "redislock-1ms", acquirers: redislocks(h.ctx, client, oneTarget("fast", n), backoff(time.Millisecond))},
			&contest{name: "redsync", acquirers: redsyncs(h.ctx, client, oneTarget("redsync", n), patient)},
			&contest{name: "redsync-1ms", acquirers: redsyncs(h.ctx, client, oneTarget("redsync-fast", n), patient, everyMs)})
	}
	if h.etcd != "" {
		client := h.dialEtcd()
		defer client.Close()
		lines = append(lines, &contest{name: "etcd", acquirers: etcds(h.ctx, etcdSessions(client, n), oneTarget("fair", n))})
	}

	got := h.race("Fair/contenders=8", "handovers/s", 5*h.round, contenders(lines))
	closeSessions()
	closePool()
	closePools()

	for _, ours := range lines[:3] {
		g := atLeast(0.6)
		if ours.name == "swanlock-pool" { // They sit in one process.
			g = atLeast(1.5)
		}
		h.against("hand-overs, 8 contenders", got, ours.name, "blocking", g)
	}
	for _, floor := range lines[4:] {
		h.against("hand-overs, 8 contenders", got, "swanlock-8-pools", floor.name, orientation)
	}
	for i, l := range lines {
		g := orientation
		if i < 3 {
			g = atMost(1.05)
		}
		h.alone("fairness, 8 contenders", series{l.name, "max/min", l.spreads()}, g)
	}
}

// A contest is a contender of the race: several goroutines that want its one
// lock.
type contest struct {
	name      string
	acquirers []acquirer
	grants    [][]int // of each, turn by turn; the first is to warm up
}

// contenders are those of a race of contests.
func contenders(contests []*contest) (all []contender) {
	for _, c := range contests {
		all = append(all, contender{c.name, c.turn})
	}
	return all
}

// turn measures how often the lock went from one to another in a second. When
// the time is over, each gets it once more, so that nobody is cut short.
func (l *contest) turn(d time.Duration) float64 {
	var wg sync.WaitGroup
	grants := make([]int, len(l.acquirers))
	l.grants = append(l.grants, grants)
	handovers := 0 // guarded by the lock under test, like last
	last := -1
	var over atomic.Bool
	errs := make([]error, len(l.acquirers))
	time.AfterFunc(d, func() { over.Store(true) })
	for i, acquire := range l.acquirers {
		wg.Go(func() {
			for !over.Load() {
				release, err := acquire()
				if err == nil {
					if !over.Load() {
						grants[i]++
						if last != i {
							last = i
							handovers++
						}
					}
					err = release()
				}
				if err != nil {
					errs[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		check(err)
	}
	return float64(handovers) / d.Seconds()
}

// spreads are how often, in each turn, the luckiest got the lock for once that the
// unluckiest did.
func (l *contest) spreads() (spreads []float64) {
	for _, grants := range l.grants[1:] {
		spreads = append(spreads, float64(slices.Max(grants))/float64(slices.Min(grants)))
	}
	return spreads
}
