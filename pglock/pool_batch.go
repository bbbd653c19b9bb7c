package pglock

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// A batcher sends the ops that are queued for a pool's session. It has the
// session's turn.
type batcher struct {
	turn
	s *poolSession
}

// run sends the proofs, then the ops that can share a statement, and then the
// others.
func (b batcher) run(proofs, batch []*op) {
	s := b.s
	defer func() {
		if s.over() != nil {
			s.stopBeating()
			s.p.forget(s, false)
		}
	}()
	if len(proofs) > 0 && s.over() == nil {
		b.prove(proofs)
	} else {
		s.failAll(proofs)
	}
	if s.over() != nil {
		s.failAll(batch)
		return
	}
	if err := b.shortenLease(); err != nil {
		if sqlState(err) == "" {
			b.destroy(err)
			s.failAll(batch)
			return
		}
		batch = slices.DeleteFunc(slices.Clone(batch), func(o *op) bool {
			if o.kind == acquiring {
				o.err = explain(err, false)
			}
			return o.kind == acquiring
		})
	}
	c := &s.combiner
	c.releases, c.acquires = c.releases[:0], c.acquires[:0]
	for _, o := range batch {
		switch {
		case !o.batched(b.audit):
		case !s.stillWanted(o):
		case o.kind == acquiring:
			c.acquires = append(c.acquires, o)
		default:
			c.releases = append(c.releases, o)
		}
	}
	if len(c.releases)+len(c.acquires) > 1 {
		b.sendBatch(c.releases, c.acquires)
	} else {
		for _, o := range append(c.releases, c.acquires...) {
			b.sendOne(o)
		}
	}
	for _, o := range batch {
		if !o.batched(b.audit) && s.stillWanted(o) {
			b.sendOne(o)
		}
	}
	b.unlockOverdue()
	released := slices.ContainsFunc(batch, func(o *op) bool { return o.kind == releasing })
	if released && s.over() == nil && s.p.allInUse() {
		b.giveBack()
	}
	clear(c.releases)
	clear(c.acquires)
}

// undoLeft releases what was granted to callers that have left.
func (b batcher) undoLeft(proofs, batch []*op) {
	for _, o := range proofs {
		o.state.CompareAndSwap(calling, returned)
	}
	for _, o := range batch {
		if o.state.CompareAndSwap(calling, returned) {
			continue
		}
		if o.kind == acquiring && o.err == nil {
			b.release(o.h)
		} else if o.kind == acquiring {
			b.s.p.unclaim(o.h)
		}
	}
}

// over returns why nothing can be sent on the session any more, or nil.
func (s *poolSession) over() error {
	if s.closed {
		return errPoolClosed
	}
	if dead := s.led.alive(); dead != nil {
		return fmt.Errorf("%w: %w", errSessionGone, dead)
	}
	return nil
}

// failAll ends the ops of a session that is over.
func (s *poolSession) failAll(ops []*op) {
	for _, o := range ops {
		s.stillWanted(o)
	}
}

// stillWanted reports whether o must still be sent; if not, it sets o.err.
func (s *poolSession) stillWanted(o *op) bool {
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
	case o.kind == releasing && !s.led.contains(o.h): // It was settled meanwhile.
		o.err = o.h.over()
	default:
		return true
	}
	return false
}

// taken reports whether a waiter of this pool was granted the key of o after o
// had claimed it. The server would grant it to this session once more.
func (s *poolSession) taken(o *op) bool {
	return s.led.held(o.h.key) != nil || !o.h.Shared && s.p.claimants(o.h.key) > 1
}

// sendOne sends o in a statement of its own.
func (b batcher) sendOne(o *op) {
	ctx := context.Background()
	switch o.kind {
	case acquiring:
		o.err = b.grantOne(o.ctx, o.h)
	case releasing:
		o.err = b.release(o.h)
	case refreshing:
		o.err = b.renew(ctx, o.h, false)
	case running:
		o.err = o.f(ctx, b.turn)
	}
	if gone := b.s.over(); o.err != nil && errors.Is(gone, errSessionGone) && (o.kind == acquiring || o.kind == running) && !errors.Is(o.err, ErrPooler) && cutOff(o.err) {
		o.err = gone
	}
}

// grantOne asks for a lock that the session does not have, or has only for
// other readers.
func (b batcher) grantOne(ctx context.Context, h *hold) error {
	if h.Shared {
		switch awaited, err := b.awaited(h, math.MaxInt64); {
		case err != nil:
			return err
		case awaited:
			return swanlock.ErrNotAcquired
		}
	}
	if err := b.grant(ctx, h, ""); err != nil {
		return err
	}
	if h.pid != b.s.pid {
		b.wrongBackend(h, h.pid)
		return ErrPooler
	}
	return nil
}

// awaited reports whether the reader h would overtake a waiter that is in the
// server's queue, or has a ticket with a number lower than below. To a session
// that has the lock for another reader the server grants it once more, even if
// others wait.
func (b batcher) awaited(h *hold, below int64) (bool, error) {
	if !b.led.hasOtherReader(h.key, h) {
		return false, nil
	}
	awaited, err := look(context.Background(), b.turn, (*db.Queries).Awaited, db.AwaitedParams{Key: int64(h.key), Hash: lineHash(h.key), Below: below})
	return awaited, explain(err, false)
}

// sendBatch sends the ops in one statement.
func (b batcher) sendBatch(releases, acquires []*op) {
	s := b.s
	b.counts.batch(len(releases) + len(acquires))
	sent := time.Now()
	row, err := ask(context.Background(), b.turn, (*db.Queries).Batch, db.BatchParams{
		Pid:     s.pid,
		Release: s.array(releases, func(o *op) int64 { return int64(o.h.key) }),
		Acquire: s.array(acquires, func(o *op) int64 { return int64(o.h.key) }),
		Lines:   s.array(acquires, func(o *op) int64 { return o.h.line }),
	})
	if err == nil && row.Pid != s.pid {
		b.endBehindPooler(row.Pid)
		s.failAll(releases)
		for _, o := range acquires {
			o.err = ErrPooler
		}
		return
	}
	if err == nil && (len(row.Released) != len(releases) || len(row.Acquired) != len(acquires)) {
		err = fmt.Errorf("the server answered %d of %d unlocks and %d of %d locks", len(row.Released), len(releases), len(row.Acquired), len(acquires))
	}
	if err != nil {
		b.untangle(releases, acquires, err)
		return
	}
	b.led.touch(sent)
	for i, o := range releases {
		o.err = b.released(o.h, row.Released[i] == '1')
	}
	for i, o := range acquires {
		if row.Acquired[i] != '1' {
			o.err = swanlock.ErrNotAcquired
			continue
		}
		o.h.pid = row.Pid
		o.h.began(sent)
		over := b.led.add(o.h, sent)
		if o.err = o.h.tooLate(o.ctx, over); o.err != nil {
			b.release(o.h)
		}
	}
}

// array returns the numbers of the ops as the text of a PostgreSQL array.
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

// released notes the server's answer to the unlock of h, and returns the error
// of its Release.
func (b batcher) released(h *hold, held bool) error {
	if err := b.led.settled(h, held); !errors.Is(err, swanlock.ErrReleased) {
		return err
	}
	return nil
}

// untangle settles a batch that failed with err, of which some locks and
// unlocks may have been made: it gives the locks back, and finishes the
// unlocks.
func (b batcher) untangle(releases, acquires []*op, err error) {
	var held map[Key]bool
	unknown := err
	if sqlState(err) != "" {
		held, unknown = b.held(context.Background())
	}
	for _, o := range acquires { // A lock that was granted is given back.
		o.err = explain(err, false)
		if _, ok := held[o.h.key]; ok && unknown == nil {
			unknown = b.unlockIfHeld(o.h.key, false)
		}
	}
	if unknown != nil {
		b.destroy(err)
		b.s.failAll(releases)
		for _, o := range acquires {
			o.err = fmt.Errorf("%w: %w", errSessionGone, err)
		}
		return
	}
	for _, o := range releases {
		if _, ok := held[o.h.key]; ok {
			o.err = b.release(o.h)
		} else { // The session lives, so only the batch can have unlocked it.
			o.err = b.released(o.h, true)
		}
	}
}
