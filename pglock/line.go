package pglock

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file is the line of those who wait for a lock: first come, first served,
// on all hosts. queries/line.sql says what it is made of.

// slice is the most that one statement waits in the server: it keeps vacuum
// back meanwhile, and beyond deadlock_timeout (1 s) the server suspects it.
const slice = 500 * time.Millisecond

// goneAhead is what Turn answers when the ticket ahead is gone, and not who is
// ahead now.
const goneAhead = -3

// tries is how many numbers are tried one by one at most, which costs as much as
// a look at pg_locks does when nobody else is locking.
const tries = 256

// A ticket is a place in the line.
type ticket struct {
	led    *ledger
	w      *wire
	crowd  *crowd
	pid    int32
	hash   int64
	number int32
	ahead  atomic.Int32 // the ticket in front, when last seen; 0: it is first, and stays so
	lowest atomic.Int32 // no number below is live
}

// numberBits is how many of a ticket's 64 bits are its number: see queries/line.sql.
const numberBits = 18

// hash is what the tickets of the key's line have in common: the key, with zeros where
// their numbers are.
func (k Key) hash() int64 { return int64(k) &^ (1<<numberBits - 1) }

// A crowd is what is known of the line for the key that was last waited for. Who
// wants the key again goes to the end of the line at once: a try would mostly be in
// vain, and otherwise overtake the others just when one of them is being told that
// it is his turn.
type crowd struct {
	mu     sync.Mutex
	some   bool
	key    Key
	last   int32 // the number that was last taken here
	lowest int32 // no number below is live
	taken  time.Time
	met    time.Time // when somebody else was last met
}

// moment is how long what was seen of a line says something about it.
const moment = 100 * time.Millisecond

// at says whether key is the one that was last waited for.
func (c *crowd) at(key Key) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.some && c.key == key
}

// hint is the number that was taken in key's line a moment ago, or 0, and below
// which none is live. All who were behind an older one may be dead.
func (c *crowd) hint(key Key) (last, lowest int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.some || c.key != key || time.Since(c.taken) > moment {
		return 0, 0
	}
	return c.last, c.lowest
}

// joined notes the place that was taken for key. Who is first in line meets
// nobody, unless a try was in vain.
func (c *crowd) joined(key Key, t *ticket, tried bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	switch {
	case tried || t.ahead.Load() != 0:
		c.some, c.met = true, now
	case c.key != key:
		return
	case now.Sub(c.met) > moment:
		c.some = false
	}
	c.key, c.last, c.lowest, c.taken = key, t.number, t.lowest.Load(), now
}

// passed notes that nobody is in t's line with a number below lowest. One that is
// not between the two that are known is of another line.
func (c *crowd) passed(t *ticket, lowest int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.key.hash() == t.hash && c.lowest <= lowest && lowest <= c.last {
		c.lowest = lowest
	}
}

// takeTicket joins the line. It returns nil, without an error, if too many
// others joined at the same moment, again and again, or if the line's numbers
// have run out until it is empty.
func (w *wire) takeTicket(ctx context.Context, led *ledger, key Key, c *crowd) (*ticket, error) {
	t := &ticket{led: led, w: w, crowd: c, hash: key.hash()}
	var err error
	hint, lowest := c.hint(key)
	own := slices.Max(append(led.line(t.hash), 0)) // its last
	if hint > 0 {
		err = w.ask(ctx, led, func(ctx context.Context) error {
			row, err := w.q.TakeNext(ctx, db.TakeNextParams{Hash: t.hash, Hint: max(hint, own), Own: own >= hint})
			t.pid, t.number = row.Pid, row.Ticket
			return err
		})
	}
	for n := 0; err == nil && t.number == 0 && n < 4; n++ {
		err = w.ask(ctx, led, func(ctx context.Context) error {
			row, err := w.q.TakeTicket(ctx, db.TakeTicketParams{Hash: t.hash, Own: own > 0})
			t.pid, t.number, lowest = row.Pid, row.Ticket, row.Lowest
			return err
		})
	}
	if err != nil {
		w.undoTicket(ctx, led, t.hash, err)
		return nil, explain(err, false)
	}
	if t.number <= 0 {
		return nil, nil
	}
	if lowest > 0 {
		t.ahead.Store(t.number - 1) // there was one when it was taken
	} else {
		lowest = t.number
	}
	t.lowest.Store(lowest)
	led.mu.Lock()
	led.tickets[t] = false
	led.mu.Unlock()
	return t, nil
}

// undoTicket makes sure that a takeTicket that failed with err has left nothing.
func (w *wire) undoTicket(ctx context.Context, led *ledger, hash int64, err error) {
	switch sqlState(err) {
	case "25P02":
		return
	case "":
	default:
		var known []string
		for _, number := range led.line(hash) {
			known = append(known, strconv.Itoa(int(number)))
		}
		if w.ask(ctx, led, func(ctx context.Context) error {
			_, err := w.q.UndoTicket(ctx, db.UndoTicketParams{Hash: hash, Shares: int32(len(known)), Known: "{" + strings.Join(known, ",") + "}"})
			return err
		}) == nil {
			return
		}
	}
	w.destroy(led, err)
}

// has says whether t still has its place.
func (t *ticket) has() bool {
	t.led.mu.Lock()
	defer t.led.mu.Unlock()
	_, ok := t.led.tickets[t]
	return ok
}

func (t *ticket) dropped() {
	t.led.mu.Lock()
	delete(t.led.tickets, t)
	t.led.mu.Unlock()
}

// drop gives the place up. A ticket that stayed would stop the whole line, so
// if in doubt its session goes.
func (w *wire) drop(ctx context.Context, t *ticket) error {
	if !t.has() {
		return nil
	}
	var row db.DropTicketRow
	err := w.ask(ctx, t.led, func(ctx context.Context) (err error) {
		row, err = w.q.DropTicket(ctx, db.DropTicketParams{Pid: t.pid, Hash: t.hash, Ticket: t.number})
		return err
	})
	if err == nil && row.Pid != t.pid {
		err = ErrPooler
	}
	if err != nil {
		w.destroy(t.led, err)
		return err
	}
	t.dropped()
	return nil
}

// turn looks whether it is t's turn, and waits for it for a slice, if that is
// not 0, and if w may: then waited is true. With no error, it is h's turn, and
// the session holds the lock, if granted is true.
func (w *wire) turn(ctx context.Context, h *hold, t *ticket, slice time.Duration) (granted, waited bool, err error) {
	pid := t.pid
	if h.at != nil {
		pid = h.at.pid
	}
	params := db.TurnParams{Ahead: t.ahead.Load(), Lowest: t.lowest.Load(), Hash: t.hash, Ticket: t.number,
		Shared: h.info.Shared, Key: int64(h.id.key), Mine: t.led == h.led}
	switch {
	case params.Ahead == 0:
		params.Lowest = t.number // none is tried
	case slices.Min(append(h.led.line(t.hash), t.number)) < t.number:
		slice, params.Lowest = 0, 0 // who is ahead on the same session is neither waited for nor found by trying
	case params.Lowest < t.number-tries:
		params.Lowest = 0
	}
	if slice > 0 {
		params.Slice = strconv.FormatInt(milliseconds(slice), 10)
	}
	sent := time.Now()
	var row db.TurnRow
	err = w.ask(ctx, h.led, func(ctx context.Context) (err error) {
		row, err = w.q.Turn(ctx, params)
		return err
	})
	state := sqlState(err)
	if slice == 0 && h.info.Shared && h.led.reads(h.id.key, h) {
		state = "" // the other readers' lock would answer
	}
	switch state {
	case "55P03", "57014": // the slice is over, and was perhaps not in vain
		sent = time.Now()
		held, err := w.probe(ctx, h)
		if err == nil && held.Pid != pid {
			err = ErrPooler
		}
		h.led.touch(sent)
		if err != nil {
			w.destroy(h.led, err)
			return false, true, err
		}
		h.pid = pid
		return held.Held, true, nil
	}
	if err != nil {
		w.undo(ctx, h, err)
		return false, false, explain(err, false)
	}
	h.led.touch(sent)
	h.pid = row.Pid
	if row.Pid != pid {
		w.terminate(ctx, h)
		w.drop(ctx, t)
		w.destroy(h.led, ErrPooler)
		return false, false, ErrPooler
	}
	switch row.Answer {
	case onStandby:
		return false, false, ErrStandby
	case heldElsewhere:
		t.ahead.Store(0)
		return false, false, nil
	case goneAhead:
		err := w.lookAhead(ctx, h.led, t)
		return false, err == nil && (row.Waits || t.ahead.Load() == 0), err
	case 0:
		t.ahead.Store(0)
		t.crowd.passed(t, t.number)
		if params.Mine {
			t.dropped()
		}
		return true, row.Waits, nil
	default:
		t.ahead.Store(int32(row.Answer))
		return false, row.Waits, nil
	}
}

// lookAhead finds who is ahead of t, far away perhaps.
func (w *wire) lookAhead(ctx context.Context, led *ledger, t *ticket) error {
	return explain(w.look(ctx, led, func(ctx context.Context) error {
		row, err := w.q.Ahead(ctx, db.AheadParams{Hash: t.hash, Ticket: t.number})
		if err == nil {
			t.ahead.Store(row.Ahead)
			t.lowest.Store(row.Lowest)
			t.crowd.passed(t, row.Lowest)
		}
		return err
	}), false)
}

// cancelWait ends the wait of the session with that pid, if it is waiting.
func (w *wire) cancelWait(ctx context.Context, led *ledger, pid int32) error {
	return w.look(ctx, led, func(ctx context.Context) error {
		_, err := w.q.CancelWait(ctx, pid)
		return err
	})
}

// entered makes a lock of what turn was granted at last. Whatever its error,
// nothing is held.
func (w *wire) entered(ctx context.Context, h *hold, r request) error {
	if !r.Fence && !w.audit && (r.TTL == 0 || h.at != nil) { // a pool's session has its lease
		h.began(time.Now())
		h.led.add(h, timeouts{})
		return nil
	}
	// What else is wanted is had by taking it once more, in the statement for
	// that: for a moment the session has the lock twice.
	err := w.grant(ctx, h, r)
	if err != nil {
		if h.led.alive() == nil {
			if still := w.unlockIfHeld(ctx, h); still != nil {
				w.destroy(h.led, still)
			}
		}
		return err
	}
	row, err := w.release(ctx, h, timeouts{}, false)
	if err == nil && (row.Pid != h.pid || !row.Released) {
		err = ErrPooler
	}
	if err != nil {
		w.destroy(h.led, err)
	}
	return err
}

// queue waits in line until the lock is granted or ctx ends.
func (w *wire) queue(ctx context.Context, r request) (*PostgresLock, error) {
	straight := w.crowd.at(r.key)
	if !straight {
		l, err := w.tryAcquire(ctx, r)
		if !elsewhere(err) {
			return l, err
		}
	}
	var t *ticket
	defer func() {
		if t != nil {
			w.leave(ctx, t)
		}
	}()
	for pause := newPause(); ; {
		led, err := w.enter(ctx, r)
		if err != nil {
			return nil, err
		}
		if t == nil {
			if t, err = w.takeTicket(ctx, led, r.key, &w.crowd); t != nil {
				w.crowd.joined(r.key, t, !straight)
			}
		}
		var l *PostgresLock
		waited := false
		if t != nil {
			l, waited, err = w.step(ctx, led, r, t)
		}
		led.give()
		switch {
		case l != nil:
			return l, nil
		case elsewhere(err) && ctx.Err() != nil:
			return nil, notAcquired(ctx)
		case err != nil && !elsewhere(err): // else it was granted too late for its TTL
			return nil, err
		case t != nil && !t.has():
			t = nil
		}
		if !waited {
			if err := pause.wait(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// step is one wait for the turn, or one look.
func (w *wire) step(ctx context.Context, led *ledger, r request, t *ticket) (l *PostgresLock, waited bool, err error) {
	h := newHold(r).on(w, led)
	granted, waited, err := w.turn(ctx, h, t, w.slice(ctx, led))
	if err != nil || !granted {
		return nil, waited, err
	}
	if err := w.entered(ctx, h, r); err != nil {
		return nil, waited, err
	}
	l, err = w.finish(ctx, h, r)
	return l, waited, err
}

// slice is how long a statement may wait on a caller's session; not at all
// where other locks would have to wait as well.
func (w *wire) slice(ctx context.Context, led *ledger) time.Duration {
	led.mu.Lock()
	busy := len(led.locks) > 0
	led.mu.Unlock()
	if busy || w.polling {
		return 0
	}
	return before(ctx, slice/2) // ctx is looked at in between
}

// before is d, or what is left of it before ctx's deadline, but a millisecond at
// least.
func before(ctx context.Context, d time.Duration) time.Duration {
	if deadline, ok := ctx.Deadline(); ok {
		d = min(d, time.Until(deadline))
	}
	return max(d, time.Millisecond)
}

// leave gives up the place of a caller who has the lock, or has gone.
func (w *wire) leave(ctx context.Context, t *ticket) {
	if !t.has() {
		return
	}
	if err := t.led.takeSoon(); err != nil {
		w.destroy(t.led, err)
		return
	}
	defer t.led.give()
	var err error
	if _, w.raw, err = ledgerOf(w.conn); err != nil { // closed: who comes to the session next pays
		t.led.abandon(w.conn, false, err)
		return
	}
	if err := w.drop(ctx, t); err != nil {
		w.log.Warn("pglock: the place in line was given up with the session", "err", err)
	}
}

// elsewhere says that a try failed because another session has the lock.
func elsewhere(err error) bool {
	return errors.Is(err, swanlock.ErrNotAcquired) && !errors.Is(err, swanlock.ErrAlreadyHeld)
}

// A pause grows from one look to the next.
type pause time.Duration

func newPause() *pause { p := pause(2 * time.Millisecond); return &p }

// next is how long to pause: a random part of an interval that grows to a
// quarter of a second, so that waiters do not march in step.
func (p *pause) next() time.Duration {
	d := time.Duration(*p)
	*p = pause(min(d*3/2, 250*time.Millisecond))
	return d/2 + rand.N(d/2)
}

func (p *pause) wait(ctx context.Context) error {
	timer := time.NewTimer(p.next())
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return notAcquired(ctx)
	}
}
