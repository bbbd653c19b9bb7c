package pglock

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/swanlake-io/swanlock"
)

// A batcher sends the ops that are queued for a pool's session. It has the
// session's turn.
type batcher struct {
	turn
	s    *poolSession
	join *join // the ticket that the batch takes, too; nil: none
}

// run sends the proofs, then the ops that can share a statement, and then the
// others.
func (b batcher) run(proofs, batch []*op) {
	s := b.s
	defer func() {
		if s.over() != nil {
			s.stopBeating()
			s.p.sessions.forget(s, false)
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
	releases, acquires := s.releases[:0], s.acquires[:0]
	for _, o := range batch {
		switch {
		case !s.batched(o):
		case !s.stillWanted(o):
		case o.kind == acquiring:
			acquires = append(acquires, o)
		default:
			releases = append(releases, o)
		}
	}
	s.releases, s.acquires = releases, acquires
	b.join = b.joining(batch)
	b.send(b.readers(releases, acquires))
	b.join = nil
	for _, o := range batch {
		if !s.batched(o) && s.stillWanted(o) {
			b.sendOne(o)
		}
	}
	b.unlockOverdue()
	released := slices.ContainsFunc(batch, func(o *op) bool { return o.kind == releasing })
	if released && s.over() == nil && s.p.guest.allInUse() {
		b.giveBack()
	}
	clear(s.releases)
	clear(s.acquires)
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
			b.s.p.keys.unclaim(o.h)
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
// had claimed it. The server would grant it to this session once more. A lock that
// is passed on is held until then.
func (s *poolSession) taken(o *op) bool {
	if o.ticket != nil {
		return false
	}
	return s.led.held(o.h.key) != nil || !o.h.Shared && s.p.keys.claimants(o.h.key) > 1
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

// grantOne asks for a lock in a statement of its own.
func (b batcher) grantOne(ctx context.Context, h *hold) error {
	if err := b.grant(ctx, h, ""); err != nil {
		return err
	}
	if h.pid != b.s.pid {
		b.wrongBackend(h, h.pid)
		return ErrPooler
	}
	return nil
}
