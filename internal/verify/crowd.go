package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A crowd is some callers of one process that come together, on one Pool with a
// single connection. The clients of client.go meet by chance, and seldom; the
// crowds of all processes meet on the same targets in each round, since they
// share a clock.

// crowdSize is how many callers each process has in its crowd.
const crowdSize = 3

// A round has three parts. First the first caller of each process joins the line
// for a lock, and the one that gets it keeps it until the others of the
// processes have stood in line for long enough for their order to be judged. So
// a Pool that passes the lock on to its own caller, past those that came before
// in other processes, is seen. Then all try to take two locks, so that the
// statements of each Pool ask for several. Last, all want places of the
// semaphore, each for long enough to meet the others.
const (
	crowdRound  = 5 * time.Second
	crowdSecond = 1750 * time.Millisecond // when the others join the line
	crowdServed = 2750 * time.Millisecond // when the first holder releases
	crowdTries  = 3250 * time.Millisecond
	crowdPlaces = 3750 * time.Millisecond
)

// crowd goes through the rounds until ctx ends. Its error is of the journal.
func (w *worker) crowd(ctx context.Context) error {
	callers := make([]*client, w.cfg.Crowd)
	for i := range callers {
		callers[i] = w.client(w.cfg.Clients + i)
	}
	for {
		n := now()/int64(crowdRound) + 1
		start := n * int64(crowdRound)
		if pauseUntil(ctx, start) != nil {
			return nil
		}
		kind := poolKinds[(int(n)+w.cfg.Slot)%len(poolKinds)]
		kind.open = openSmallPool
		label := fmt.Sprintf("%s.crowd.%d", w.cfg.Name, n)
		pool, err := w.site.open(ctx, kind, label)
		if err != nil {
			return err
		}
		var group sync.WaitGroup
		errs := make([]error, len(callers))
		for i, c := range callers {
			group.Go(func() { errs[i] = builder{client: c, pool: pool, kind: kind, label: label}.meet(ctx, start, i == 0) })
		}
		group.Wait()
		pool.close(context.Background())
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
}

// meet is a caller's part of a round.
func (b builder) meet(ctx context.Context, start int64, first bool) error {
	at := func(d time.Duration) int64 { return start + int64(d) }
	joins := start
	if !first {
		joins = at(crowdSecond)
	}
	if pauseUntil(ctx, joins) != nil {
		return nil
	}
	h := b.hotHold(hotTarget, true)
	err := b.visit(ctx, at(crowdTries), h, func(id string, lock swanlock.DistributedLock) error {
		b.stay = time.Duration(at(crowdServed) - now())
		return b.work(ctx, id, h, lock)
	})
	if err != nil || pauseUntil(ctx, at(crowdTries)) != nil {
		return err
	}
	for n := 0; n < 8 && now() < at(crowdPlaces); n++ {
		h := b.hotHold(hotTarget+b.rnd.IntN(hotTargets), false)
		err := b.visit(ctx, at(crowdPlaces), h, func(id string, lock swanlock.DistributedLock) error {
			_, err := b.held(id, lock)
			return err
		})
		if err != nil {
			return err
		}
	}
	if pauseUntil(ctx, at(crowdPlaces)) != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, time.Duration(at(crowdRound)-now()))
	defer cancel()
	p, err := b.builder(ctx)
	if err != nil {
		return nil // The server may be down.
	}
	b.stay = time.Duration(100+b.rnd.IntN(200)) * time.Millisecond
	return p.place(ctx, b.drawTTL())
}

func (b builder) hotHold(target int, wait bool) *Hold {
	h := b.builtHold(target, 0)
	h.Wait, h.Fenced, h.Audited = wait, true, b.kind.audited
	return h
}

// visit takes the lock of h, if it can be had by until, calls work and frees it.
func (b builder) visit(ctx context.Context, until int64, h *Hold, work func(id string, lock swanlock.DistributedLock) error) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(until-now()))
	defer cancel()
	id, lock, err := b.acquire(ctx, b.pool, h, []swanlock.Option{swanlock.WithFence()})
	if lock == nil || err != nil {
		return err
	}
	if err := work(id, lock); err != nil {
		return err
	}
	return b.release(context.Background(), id, lock)
}

// pauseUntil waits for a time of now.
func pauseUntil(ctx context.Context, at int64) error {
	return pause(ctx, time.Duration(at-now()))
}
