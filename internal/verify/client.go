package verify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// A client takes one lock after the other. The seed fixes what it tries, not
// how the machine interleaves it.
type client struct {
	*worker
	number int
	rnd    *rand.Rand

	kind    lockerKind
	locker  *opened
	label   string
	uses    int // how often the locker will still be used
	lockers int

	stay    time.Duration // how long the next lock is held at least, without a word
	spoiled bool          // the locker is not to be used again
	refused bool          // the last acquire was, on a session that can be used again
	failed  bool          // the last release did
}

func (c *client) run(ctx context.Context) error {
	defer c.drop()
	for ctx.Err() == nil {
		if c.uses == 0 {
			c.drop()
		}
		if c.locker == nil {
			if c.take(ctx) != nil { // the server may be down
				c.sleep(ctx, 20*time.Millisecond, 100*time.Millisecond)
				continue
			}
		}
		c.uses--
		again, err := c.once(ctx)
		if err != nil {
			return err
		}
		if !again || c.spoiled {
			c.drop()
		}
		c.sleep(ctx, 0, 10*time.Millisecond)
	}
	return nil
}

// take opens a locker of the next kind. The clients of a process go through the
// kinds together, so that they share statements of its pools.
func (c *client) take(ctx context.Context) (err error) {
	c.kind = c.kinds[(c.cfg.Slot+c.lockers)%len(c.kinds)]
	c.label = fmt.Sprintf("%s.%d.%d", c.cfg.Name, c.number, c.lockers)
	if c.kind.shared {
		c.label = c.cfg.Name + "." + c.kind.name
	}
	c.lockers++
	octx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c.locker, err = c.worker.locker(octx, c.kind, c.label)
	c.uses = 5 + c.rnd.IntN(25)
	return err
}

func (c *client) drop() {
	if c.locker != nil && !c.kind.shared {
		c.locker.close(context.Background())
	}
	c.locker, c.stay, c.spoiled = nil, 0, false
}

func (c *client) sleep(ctx context.Context, least, most time.Duration) {
	lease.Pause(ctx, least+time.Duration(c.rnd.Int64N(int64(most-least))))
}

func (c *client) chance(percent int) bool { return c.rnd.IntN(100) < percent }

// ask draws what to ask for.
func (c *client) ask() (*Hold, []swanlock.Option) {
	h := &Hold{Proc: c.cfg.Name, Client: c.number, Label: c.label, Locker: c.kind.name, Single: c.kind.single,
		Audited: c.kind.audited, Target: c.rnd.IntN(mainTargets)}
	h.Wait = c.chance(70)
	h.Shared = c.cfg.Targets[h.Target].Shared && c.chance(60)
	h.Fenced = !h.Shared && c.chance(75)
	if c.chance(60) {
		h.TTL = c.drawTTL()
		h.Auto = c.chance(30)
	}
	opts := []swanlock.Option{}
	if h.TTL > 0 {
		opts = append(opts, swanlock.WithTTL(h.TTL))
	}
	if h.Auto {
		opts = append(opts, swanlock.WithAutoRefresh())
	}
	if h.Shared {
		opts = append(opts, swanlock.WithShared())
	}
	if h.Fenced {
		opts = append(opts, swanlock.WithFence())
	}
	return h, opts
}

// drawTTL returns a TTL between the shortest and twice that.
func (c *client) drawTTL() time.Duration {
	return c.cfg.TTL + time.Duration(c.rnd.Int64N(int64(c.cfg.TTL/time.Millisecond)))*time.Millisecond
}

// once takes a lock, works and frees it, and does some of that in transactions of
// its own. Its error is of the journal; again says that the locker can be used
// again.
func (c *client) once(ctx context.Context) (again bool, err error) {
	if c.cfg.Backend == "" && c.chance(20) { // Other backends have no Pool.
		return true, c.built(ctx)
	}
	h, opts := c.ask()
	d := c.deal()
	h.InTransaction = d.acquires
	actx, cancel := context.WithTimeout(ctx, 100*time.Millisecond+time.Duration(c.rnd.Int64N(int64(3*time.Second))))
	defer cancel()
	if c.cfg.Cancel && c.chance(15) {
		defer time.AfterFunc(time.Duration(c.rnd.Int64N(int64(5*time.Millisecond))), cancel).Stop()
	}
	conn, err := c.begin(d.acquires)
	if err != nil {
		return false, nil // the session is over
	}
	id, lock, err := c.acquire(actx, c.locker, h, opts)
	if err == nil {
		err = c.end(conn, id, d)
	}
	if lock == nil || err != nil {
		return c.refused, err
	}
	if d.beside {
		if err := c.besides(ctx, id, h, lock, d); err != nil {
			return false, err
		}
	}

	if err := c.work(ctx, id, h, lock); err != nil {
		return false, err
	}

	if conn, err = c.begin(d.releases); err != nil {
		c.spoiled, conn = true, nil
	}
	rctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	if c.cfg.Cancel && c.chance(10) {
		cancel()
	}
	if err := c.release(rctx, id, lock); err != nil {
		return false, err
	}
	if d.releases && d.rolledBack { // the lease of this lock is there again
		c.stay = h.TTL + time.Duration(c.rnd.IntN(700))*time.Millisecond
	}
	return !c.failed, c.end(conn, id, d)
}

// acquire takes a lock, if it can be had, and tells of it. Its error is of the
// journal.
func (c *client) acquire(ctx context.Context, locker swanlock.Locker, h *Hold, opts []swanlock.Option) (id string, _ swanlock.DistributedLock, err error) {
	id = c.next()
	opts = append(opts, swanlock.WithOwner(id))
	if err := c.journal.put(event{What: evAcquire, Hold: id, Call: now(), New: h}); err != nil {
		return id, nil, err
	}
	acquire := locker.TryAcquire
	if h.Wait {
		acquire = locker.Acquire
	}
	lock, aerr := acquire(ctx, c.cfg.Targets[h.Target].Name, opts...)
	e := event{What: evGranted, Hold: id, At: now()}
	switch {
	case aerr == nil:
		e.Outcome, e.Fence = OK, int64(lock.Info().Fence)
		if b, ok := lock.(interface{ BackendPID() int }); ok {
			e.Pid = b.BackendPID()
		}
	case errors.Is(aerr, swanlock.ErrAlreadyHeld):
		e.Outcome, e.Err = Already, aerr.Error()
	case errors.Is(aerr, swanlock.ErrNotAcquired):
		e.Outcome, e.Err = Refused, aerr.Error()
	default:
		e.Outcome, e.Err = Failed, aerr.Error()
	}
	c.refused = e.Outcome == Refused
	if aerr != nil {
		lock = nil
	}
	return id, lock, c.journal.put(e)
}

// release frees a lock and tells of it. Its error is of the journal.
func (c *client) release(ctx context.Context, id string, lock swanlock.DistributedLock) error {
	if err := c.journal.put(event{What: evRelease, Hold: id, Call: now()}); err != nil {
		return err
	}
	err := lock.Release(ctx)
	e := event{What: evReleased, Hold: id, At: now(), Outcome: OK}
	if err != nil {
		e.Outcome, e.Err = Failed, err.Error()
		if errors.Is(err, swanlock.ErrLost) {
			e.Outcome = Lost
		}
	}
	// A context that had ended before is no reason not to go on with the session.
	c.failed = err != nil && (e.Outcome == Lost || ctx.Err() == nil)
	return c.journal.put(e)
}

// work is what a holder does. It always ends with what a late writer would do:
// look whether the lock is held, and write.
func (c *client) work(ctx context.Context, id string, h *Hold, lock swanlock.DistributedLock) error {
	fence := int64(lock.Info().Fence)
	// Most are short. Some last for longer than the TTL, and are refreshed or not.
	least, most := time.Duration(0), 20*time.Millisecond
	refresh := h.TTL > 0 && c.chance(50)
	switch {
	case c.chance(cmp.Or(c.cfg.Long, 4)):
		least, most = 200*time.Millisecond, 700*time.Millisecond
	case h.TTL > 0 && c.chance(cmp.Or(c.cfg.Outlast, 7)):
		least, most = h.TTL, 2*h.TTL
	case h.TTL == 0 && c.chance(c.cfg.Outlast): // as long as a server may take to restart
		least, most = 2*time.Second, 4*time.Second
	}
	if c.stay > 0 {
		least, most, refresh = c.stay, c.stay+20*time.Millisecond, false
		c.stay = 0
	}
	end := time.Now().Add(least + time.Duration(c.rnd.Int64N(int64(most-least))))

	held, err := c.held(id, lock)
	if err != nil {
		return err
	}
	claimed := false
	if fence > 0 && held {
		if claimed, err = c.write(id, fence, h.Target, true); err != nil {
			return err
		}
	}
	for ctx.Err() == nil && held && time.Now().Before(end) {
		timer := time.NewTimer(min(time.Until(end), 50*time.Millisecond))
		select {
		case <-timer.C:
		case <-lock.Done():
		case <-ctx.Done():
		}
		timer.Stop()
		if refresh && lock.Err() == nil {
			rctx, cancel := context.WithTimeout(ctx, h.TTL)
			lock.Refresh(rctx)
			cancel()
		}
		if held, err = c.held(id, lock); err != nil {
			return err
		}
	}
	if claimed {
		if _, err := c.write(id, fence, h.Target, false); err != nil {
			return err
		}
	}
	_, err = c.held(id, lock)
	return err
}

// held asks the lock whether it is held, as a holder should before its work and
// after it.
func (c *client) held(id string, lock swanlock.DistributedLock) (bool, error) {
	call := now()
	err := lock.Err()
	e := event{What: evHeld, Hold: id, Call: call, At: now()}
	if err != nil {
		e.What, e.Err = evEnded, err.Error()
	}
	return err == nil, c.journal.put(e)
}

// write claims or writes the register, and reports whether that was accepted.
func (c *client) write(id string, fence int64, target int, claim bool) (bool, error) {
	w := registerWrite{target, fence, fmt.Sprintf("%s.%d", id, c.rnd.Uint32()), claim}
	if err := c.journal.put(event{What: evWrite, Hold: id, Call: now(), Write: w.ID, Claim: claim, Fence: fence}); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	met, outcome, err := c.site.write(ctx, w)
	e := event{What: evWritten, Hold: id, At: now(), Outcome: outcome, Met: met}
	if err != nil {
		e.Err = err.Error()
	}
	return outcome == OK, c.journal.put(e)
}
