package verify

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/multilock"
	"github.com/swanlake-io/swanlock/semaphore"
)

// What is built on lockers is verified on the Pools: a client takes a place of a
// semaphore, leads, or takes two of the main targets at once. Those two are locks
// like others, and are judged with them. For places and leaders there is
// checkPlaces.

// A builder is a client that uses what is built on a Pool.
type builder struct {
	*client
	pool  swanlock.Locker
	kind  lockerKind
	label string // of the Pool's sessions
}

// built takes and frees a lock of that kind, if the server lets it.
func (c *client) built(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	b, err := c.builder(ctx)
	if err != nil {
		return nil
	}
	ttl := c.drawTTL()
	c.stay = time.Duration(1+c.rnd.IntN(300)) * time.Millisecond // long enough to meet others
	switch c.rnd.IntN(4) {
	case 0:
		return b.lead(ctx, ttl)
	case 1:
		return b.both(ctx, ttl)
	}
	return b.place(ctx, ttl)
}

// builder opens a Pool to build on, or finds the one that the clients share.
func (c *client) builder(ctx context.Context) (b builder, err error) {
	b = builder{client: c, kind: builtKinds[c.rnd.IntN(len(builtKinds))]}
	b.label = c.cfg.Name + "." + b.kind.name
	b.pool, err = c.worker.locker(ctx, b.kind, b.label)
	return b, err
}

func (b builder) builtHold(target int, ttl time.Duration) *Hold {
	return &Hold{Proc: b.cfg.Name, Client: b.number, Label: b.label, Locker: b.kind.name, Target: target, TTL: ttl}
}

// place takes a place of the semaphore.
func (b builder) place(ctx context.Context, ttl time.Duration) error {
	h := b.builtHold(semaphoreTarget, ttl)
	h.Wait = b.chance(70)
	id, lock, err := b.acquire(ctx, semaphore.New(b.pool, b.cfg.Targets[h.Target].Places), h, []swanlock.Option{swanlock.WithTTL(ttl)})
	if lock == nil || err != nil {
		return err
	}
	if err := b.work(ctx, id, h, lock); err != nil {
		return err
	}
	return b.release(context.Background(), id, lock)
}

// lead leads for a while. The election does not say whether the server confirmed
// the release, so in the history that has failed.
func (b builder) lead(ctx context.Context, ttl time.Duration) (err error) {
	h, id := b.builtHold(leaderTarget, ttl), b.next()
	if err := b.journal.put(event{What: evAcquire, Hold: id, Call: now(), New: h}); err != nil {
		return err
	}
	led := false
	election.Run(ctx, b.pool, b.cfg.Targets[h.Target].Name, func(ctx context.Context) error {
		led = true
		lock, _ := election.Lock(ctx)
		e := event{What: evGranted, Hold: id, At: now(), Outcome: OK}
		if b, ok := lock.(interface{ BackendPID() int }); ok {
			e.Pid = b.BackendPID()
		}
		if err = b.journal.put(e); err == nil {
			err = b.work(ctx, id, h, lock)
		}
		if err == nil {
			err = b.journal.put(event{What: evRelease, Hold: id, Call: now()})
		}
		return election.ErrResign
	}, election.WithLockOptions(swanlock.WithOwner(id), swanlock.WithTTL(ttl)))
	if !led {
		return b.journal.put(event{What: evGranted, Hold: id, At: now(), Outcome: Refused})
	}
	if err == nil {
		err = b.journal.put(event{What: evReleased, Hold: id, At: now(), Outcome: Failed})
	}
	return err
}

// both takes the two main targets that readers do not lock, in one call.
func (b builder) both(ctx context.Context, ttl time.Duration) error {
	var ids, names []string
	var holds []*Hold
	for i := range mainTargets {
		if b.cfg.Targets[i].Shared {
			continue
		}
		id, h := b.next(), b.builtHold(i, ttl)
		if err := b.journal.put(event{What: evAcquire, Hold: id, Call: now(), New: h}); err != nil {
			return err
		}
		ids, names, holds = append(ids, id), append(names, b.cfg.Targets[i].Name), append(holds, h)
	}
	acquire := multilock.TryAcquire
	if b.chance(70) {
		acquire = multilock.Acquire
	}
	lock, refused := acquire(ctx, b.pool, names, swanlock.WithTTL(ttl), swanlock.WithOwner(ids[0]))
	for _, id := range ids {
		e := event{What: evGranted, Hold: id, At: now(), Outcome: OK}
		if refused != nil {
			e.Outcome, e.Err = Failed, refused.Error()
		}
		if err := b.journal.put(e); err != nil {
			return err
		}
	}
	if refused != nil {
		return nil
	}
	// Both are held while the lock is, so what it says is said of each.
	for i, id := range ids {
		if err := b.work(ctx, id, holds[i], lock); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := b.journal.put(event{What: evRelease, Hold: id, Call: now()}); err != nil {
			return err
		}
	}
	outcome := OK
	if lock.Release(context.Background()) != nil {
		outcome = Lost
	}
	for _, id := range ids {
		if err := b.journal.put(event{What: evReleased, Hold: id, At: now(), Outcome: outcome}); err != nil {
			return err
		}
	}
	return nil
}

// checkPlaces checks that no more hold a target than it has places: never more
// than those of a semaphore, and never two leaders. What counts is how long each
// held it for certain.
func checkPlaces(hist *History) Result {
	r := Result{Kind: KindPlaces}
	for i, target := range hist.Targets {
		if target.Places == 0 {
			continue
		}
		type turn struct {
			at int64
			by int // 1: it begins; -1: it ends
			h  *Hold
		}
		var turns []turn
		for _, h := range hist.holds(i) {
			r.Checked++
			if until := hist.certain(h); until > h.Acquire.Return {
				turns = append(turns, turn{h.Acquire.Return, 1, h}, turn{until, -1, h})
			}
		}
		slices.SortStableFunc(turns, func(a, b turn) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.by, b.by)) })
		var holders []*Hold
		for _, t := range turns {
			if t.by < 0 {
				holders = slices.DeleteFunc(holders, func(h *Hold) bool { return h == t.h })
				continue
			}
			if holders = append(holders, t.h); len(holders) > target.Places {
				r.find(target, t.at, "%d hold it, and it has room for %d: %v", len(holders), target.Places, fmt.Sprint(holders))
			}
		}
	}
	return r
}
