package pglock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file is what the leader of a pool's session sends.

// run does the proofs, what can share a statement, and the rest.
func (s *poolSession) run(ctx context.Context, proofs, batch []*op) {
	defer func() {
		if s.over() != nil {
			s.beat.Stop()
			s.p.forget(s, false)
		}
	}()
	if len(proofs) > 0 && s.over() == nil {
		s.prove(ctx, proofs)
	} else {
		s.fail(proofs)
	}
	if s.over() != nil {
		s.fail(batch)
		return
	}
	c := &s.combiner
	c.releases, c.acquires = c.releases[:0], c.acquires[:0]
	for _, o := range batch {
		switch {
		case !o.batched(s.p.audit):
		case !s.stands(o):
		case o.kind == acquiring:
			c.acquires = append(c.acquires, o)
		default:
			c.releases = append(c.releases, o)
		}
	}
	together := len(c.releases)+len(c.acquires) > 1
	if together {
		s.together(ctx, c.releases, c.acquires)
	} else {
		for _, o := range append(c.releases, c.acquires...) {
			s.alone(ctx, o)
		}
	}
	for _, o := range batch {
		if !o.batched(s.p.audit) && s.stands(o) {
			s.alone(ctx, o)
		}
	}
	s.payOwed(ctx)
	clear(c.releases)
	clear(c.acquires)
}

// over is why nothing can be done here any more.
func (s *poolSession) over() error {
	if s.shutd {
		return errPoolClosed
	}
	if dead := s.led.alive(); dead != nil {
		return fmt.Errorf("%w: %w", errSessionGone, dead)
	}
	return nil
}

// fail ends the ops of a session that is over.
func (s *poolSession) fail(ops []*op) {
	for _, o := range ops {
		s.stands(o)
	}
}

// stands says whether there is still a point in o; if not, it is done.
func (s *poolSession) stands(o *op) bool {
	over := s.over()
	switch {
	case o.kind == acquiring && o.ctx.Err() != nil:
		o.err = notAcquired(o.ctx)
	case over == nil && o.kind == acquiring && s.taken(o):
		o.err = swanlock.ErrNotAcquired
	case over != nil && o.kind == releasing, over != nil && o.h != nil && o.kind == refreshing:
		o.err = o.h.over()
	case over != nil:
		o.err = over
	case o.kind == releasing && !s.led.has(o.h): // somebody paid what it owed
		o.err = o.h.over()
	default:
		return true
	}
	return false
}

// taken says whether a waiter who polled was granted o's key since o claimed
// it: the server would grant it to this session once more.
func (s *poolSession) taken(o *op) bool {
	has := s.led.holds(o.h.id.key) != nil
	s.p.mu.Lock()
	defer s.p.mu.Unlock()
	return has || !o.r.Shared && s.p.claims[o.h.id.key].n > 1
}

// alone does o in a statement of its own.
func (s *poolSession) alone(ctx context.Context, o *op) {
	switch o.kind {
	case acquiring:
		o.err = s.grant(ctx, o.h, o.r)
	case releasing:
		o.err = s.w.unlock(ctx, o.h)
	case refreshing:
		o.err = s.w.renew(ctx, o.h)
	case alone:
		o.err = o.f(ctx)
	}
	if gone := s.over(); o.err != nil && errors.Is(gone, errSessionGone) && (o.kind == acquiring || o.kind == alone) && !errors.Is(o.err, ErrPooler) && cutOff(o.err) {
		o.err = gone
	}
}

// cutOff says whether err is the end of the connection, and says nothing else.
func cutOff(err error) bool {
	state := sqlState(err)
	return state == "" || strings.HasPrefix(state, "57P") || strings.HasPrefix(state, "08")
}

// grant asks for a lock that the session does not have, or reads.
func (s *poolSession) grant(ctx context.Context, h *hold, r request) error {
	if r.Shared {
		switch awaited, err := s.awaited(ctx, h, math.MaxInt64); {
		case err != nil:
			return err
		case awaited:
			return swanlock.ErrNotAcquired
		}
	}
	if err := s.w.grant(ctx, h, r); err != nil {
		return err
	}
	if h.pid != s.pid {
		s.w.strayed(ctx, h, h.pid)
		return ErrPooler
	}
	return nil
}

// awaited says whether a reader would overtake somebody who waits for the lock
// with a ticket below the limit, or in the server's queue: the server grants a
// lock once more to a session that has it, whoever waits.
func (s *poolSession) awaited(ctx context.Context, h *hold, below int64) (awaited bool, err error) {
	if !s.led.reads(h.id.key, h) {
		return false, nil
	}
	err = s.w.look(ctx, s.led, func(ctx context.Context) (err error) {
		awaited, err = s.w.q.Awaited(ctx, db.AwaitedParams{Key: int64(h.id.key), Hash: h.id.key.hash(), Below: below})
		return err
	})
	return awaited, explain(err, false)
}

// together does the ops in one statement.
func (s *poolSession) together(ctx context.Context, releases, acquires []*op) {
	params := db.BatchParams{
		Pid:     s.pid,
		Release: s.array(releases, func(o *op) int64 { return int64(o.h.id.key) }),
		Acquire: s.array(acquires, func(o *op) int64 { return int64(o.r.key) }),
		Gates:   s.array(acquires, func(o *op) int64 { return o.r.gate }),
	}
	sent := time.Now()
	var row db.BatchRow
	err := s.w.ask(ctx, s.led, func(ctx context.Context) (err error) {
		row, err = s.w.q.Batch(ctx, params)
		return err
	})
	if err == nil && row.Pid != s.pid {
		s.stray(ctx, row.Pid)
		s.fail(releases)
		for _, o := range acquires {
			o.err = ErrPooler
		}
		return
	}
	if err == nil && (len(row.Released) != len(releases) || len(row.Acquired) != len(acquires)) {
		err = fmt.Errorf("the server answered %d of %d unlocks and %d of %d locks", len(row.Released), len(releases), len(row.Acquired), len(acquires))
	}
	if err != nil {
		s.untangle(ctx, releases, acquires, err)
		return
	}
	s.led.touch(sent)
	for i, o := range releases {
		o.err = s.released(o.h, row.Released[i] == '1')
	}
	for i, o := range acquires {
		if row.Acquired[i] != '1' {
			o.err = swanlock.ErrNotAcquired
			continue
		}
		o.h.pid = row.Pid
		o.h.began(sent)
		s.led.add(o.h, s.before)
	}
}

// array writes a number for each of ops as PostgreSQL does.
func (s *poolSession) array(ops []*op, number func(*op) int64) string {
	b := append(s.combiner.keys[:0], '{')
	for i, o := range ops {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, number(o), 10)
	}
	s.combiner.keys = append(b, '}')
	return string(s.combiner.keys)
}

// released notes what the server said of an unlock.
func (s *poolSession) released(h *hold, held bool) error {
	s.led.mu.Lock()
	if held {
		h.end(swanlock.ErrReleased)
	} else {
		h.end(fmt.Errorf("%w: the session did not hold it any more", swanlock.ErrLost))
	}
	err := h.err
	s.led.mu.Unlock()
	s.led.remove(h, s.kept)
	if errors.Is(err, swanlock.ErrReleased) {
		return nil
	}
	return err
}

// untangle finds out what became of a batch that failed with err: some of its
// calls may have been made.
func (s *poolSession) untangle(ctx context.Context, releases, acquires []*op, err error) {
	var held map[Key]bool
	unknown := err
	if sqlState(err) != "" {
		held, unknown = s.held(ctx)
	}
	for _, o := range acquires { // what was granted is given back
		o.err = explain(err, false)
		if _, ok := held[o.h.id.key]; ok && unknown == nil {
			unknown = s.w.unlockIfHeld(ctx, o.h)
		}
	}
	if unknown != nil {
		s.w.destroy(s.led, err)
		s.fail(releases)
		for _, o := range acquires {
			o.err = fmt.Errorf("%w: %w", errSessionGone, err)
		}
		return
	}
	for _, o := range releases {
		if _, ok := held[o.h.id.key]; ok {
			o.err = s.w.unlock(ctx, o.h)
		} else { // only the batch can have unlocked it: the session lives
			o.err = s.released(o.h, true)
		}
	}
}

// held asks the session for the keys of its locks; true: shared.
func (s *poolSession) held(ctx context.Context) (map[Key]bool, error) {
	keys := make(map[Key]bool)
	err := s.w.ask(ctx, s.led, func(ctx context.Context) error {
		rows, err := s.w.q.HeldKeys(ctx)
		for _, row := range rows {
			keys[Key(row.Key)] = row.Shared
			if row.Pid != s.pid {
				return ErrPooler
			}
		}
		return err
	})
	return keys, err
}

// prove asks the server for the number of the session's locks and the sum of
// their keys, which is as good as all of them: nobody else has the session. It
// renews the leases: the session's, that of each lock whose refresh is among the
// proofs, and of those that refresh themselves.
func (s *poolSession) prove(ctx context.Context, proofs []*op) {
	locks, sum := s.expected()
	sent := time.Now()
	var row db.HeartbeatRow
	err := s.w.ask(ctx, s.led, func(ctx context.Context) (err error) {
		row, err = s.w.q.Heartbeat(ctx)
		return err
	})
	switch {
	case err == nil && row.Pid != s.pid:
		s.stray(ctx, row.Pid)
	case err != nil && sqlState(err) == "":
		s.w.destroy(s.led, err)
	case err != nil || row.Locks != locks || row.Sum != sum:
		if unknown := s.reconcile(ctx); unknown != nil {
			s.w.destroy(s.led, unknown)
		}
	}
	if s.led.alive() != nil {
		s.fail(proofs)
		return
	}
	if err == nil {
		s.led.touch(sent)
	}
	s.led.mu.Lock()
	for _, h := range s.led.locks {
		if h.renewed && h.audit == 0 && err == nil {
			h.prove(sent)
		}
	}
	for _, o := range proofs {
		o.err = explain(err, false)
		if o.h != nil && o.h.audit == 0 {
			if err == nil {
				o.h.prove(sent)
			}
			if o.h.err != nil {
				o.err = o.h.err
			}
		}
	}
	s.led.mu.Unlock()
	for _, o := range proofs {
		if o.h != nil && o.h.audit != 0 { // its row is to tell
			s.alone(ctx, o)
		}
	}
	s.rest(ctx)
}

// prove notes that the lock was held after sent, unless it had ended by then.
// led.mu is held.
func (h *hold) prove(sent time.Time) {
	if h.expire(sent); h.err == nil {
		h.lease.start = sent
	}
}

// expected is what a heartbeat should find.
func (s *poolSession) expected() (locks, sum int64) {
	s.led.mu.Lock()
	defer s.led.mu.Unlock()
	var read map[Key]bool
	for id := range s.led.locks {
		if id.reader > 0 { // the server shows one for all of them
			if read[id.key] {
				continue
			}
			if read == nil {
				read = make(map[Key]bool)
			}
			read[id.key] = true
		}
		locks++
		sum += int64(uint64(id.key)>>32) + int64(uint64(id.key)&0xffffffff)
	}
	return locks, sum
}

// reconcile finds which locks the session has lost, and ends them; what it has
// that nobody knows of is unlocked.
func (s *poolSession) reconcile(ctx context.Context) error {
	held, err := s.held(ctx)
	if err != nil {
		return err
	}
	var lost []*hold
	s.led.mu.Lock()
	for id, h := range s.led.locks {
		if shared, ok := held[id.key]; !ok || shared != h.info.Shared {
			lost = append(lost, h)
		}
	}
	for id := range s.led.locks {
		delete(held, id.key)
	}
	s.led.mu.Unlock()
	for _, h := range lost {
		h.lose(errors.New("the session does not hold it any more"))
		s.led.remove(h, s.kept)
	}
	for key, shared := range held {
		stranger := &hold{led: s.led, id: lockID{key: key}, info: swanlock.Info{Shared: shared}}
		if err := s.w.unlockIfHeld(ctx, stranger); err != nil {
			return err
		}
	}
	return nil
}

// payOwed unlocks what has ended by itself.
func (s *poolSession) payOwed(ctx context.Context) {
	if s.over() != nil {
		return
	}
	if err := s.w.settle(ctx, s.led); err != nil && s.led.alive() == nil {
		s.w.destroy(s.led, err)
	}
}

// stray ends the session: another backend answered than the one that has its
// locks.
func (s *poolSession) stray(ctx context.Context, pid int32) {
	s.led.mu.Lock()
	var any *hold
	for _, h := range s.led.locks {
		any = h
	}
	s.led.mu.Unlock()
	if any != nil {
		s.w.strayed(ctx, any, pid)
	} else {
		s.w.destroy(s.led, ErrPooler)
	}
}
