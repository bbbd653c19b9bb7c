package pglock

import (
	"context"
	"errors"
	"slices"
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
func (b batcher) run(proofs, ops []*op) {
	s := b.s
	defer func() {
		if s.over() != nil {
			s.pulse.stop()
			s.p.sessions.forget(s, false)
		}
	}()
	if len(proofs) > 0 && s.over() == nil {
		proof{b, proofs}.send()
	} else {
		b.failAll(proofs)
	}
	if s.over() != nil {
		b.failAll(ops)
		return
	}
	if err := b.shortenLease(); err != nil {
		if sqlState(err) == "" {
			b.destroy(err)
			b.failAll(ops)
			return
		}
		ops = slices.DeleteFunc(slices.Clone(ops), func(o *op) bool {
			if o.kind == acquiring {
				o.err = explain(err, false)
			}
			return o.kind == acquiring
		})
	}
	releases, acquires := s.releases[:0], s.acquires[:0]
	for _, o := range ops {
		switch {
		case !o.batched():
		case !b.stillWanted(o):
		case o.kind == acquiring:
			acquires = append(acquires, o)
		default:
			releases = append(releases, o)
		}
	}
	s.releases, s.acquires = releases, acquires
	join := b.joining(ops)
	releases, acquires = b.readers(releases, acquires)
	batch{b, releases, acquires, join}.send()
	for _, o := range ops {
		if !o.batched() && b.stillWanted(o) {
			b.sendOne(o)
		}
	}
	b.unlockOverdue()
	released := slices.ContainsFunc(ops, func(o *op) bool { return o.kind == releasing })
	if released && s.over() == nil && s.p.guest.allInUse() {
		b.giveBack()
	}
	clear(s.releases)
	clear(s.acquires)
}

// undoLeft releases what was granted to callers that have left.
func (b batcher) undoLeft(proofs, ops []*op) {
	for _, o := range proofs {
		o.state.CompareAndSwap(calling, returned)
	}
	for _, o := range ops {
		if o.state.CompareAndSwap(calling, returned) {
			continue
		}
		if o.kind == acquiring && o.err == nil {
			release(b.turn, o.h)
		} else if o.kind == acquiring {
			b.s.p.keys.unclaim(o.h)
		}
	}
}

// failAll ends the ops of a session that is over.
func (b batcher) failAll(ops []*op) {
	for _, o := range ops {
		b.stillWanted(o)
	}
}

// stillWanted reports whether o must still be sent; if not, it sets o.err.
func (b batcher) stillWanted(o *op) bool {
	over := b.s.over()
	switch {
	case o.kind == acquiring && o.ctx.Err() != nil:
		o.err = notAcquired(o.ctx)
	case over == nil && o.kind == acquiring && b.taken(o):
		o.err = swanlock.ErrNotAcquired
	case over != nil && o.kind == releasing, over != nil && o.h != nil && o.kind == refreshing:
		o.err = o.h.over()
	case over != nil:
		o.err = over
	case o.kind == releasing && !b.led.contains(o.h): // It was settled meanwhile.
		o.err = o.h.over()
	default:
		return true
	}
	return false
}

// taken reports whether a waiter of this pool was granted the key of o after o
// had claimed it. The server would grant it to this session once more. A lock that
// is passed on is held until then.
func (b batcher) taken(o *op) bool {
	if o.ticket != nil {
		return false
	}
	return b.led.held(o.h.key) != nil || !o.h.Shared && b.s.p.keys.claimants(o.h.key) > 1
}

// sendOne sends o in a statement of its own.
func (b batcher) sendOne(o *op) {
	ctx := context.Background()
	switch o.kind {
	case acquiring:
		o.err = b.grantOne(o.ctx, o.h)
	case releasing:
		o.err = release(b.turn, o.h)
	case refreshing:
		o.err = renew(ctx, b.turn, o.h, false)
	case running:
		o.err = o.f(ctx, b.turn)
	}
	if gone := b.s.over(); o.err != nil && errors.Is(gone, errSessionGone) && (o.kind == acquiring || o.kind == running) && !errors.Is(o.err, ErrPooler) && cutOff(o.err) {
		o.err = gone
	}
}

// grantOne asks for a lock in a statement of its own.
func (b batcher) grantOne(ctx context.Context, h *hold) error {
	if err := grant(ctx, b.turn, h, ""); err != nil {
		return err
	}
	if h.pid != b.s.pid {
		wrongBackend(b.turn, h, h.pid)
		return ErrPooler
	}
	return nil
}

// shortenLease gives the session the lease that its newest lock needs.
func (b batcher) shortenLease() error {
	s := b.s
	lease := s.leaseNow()
	if kept := s.pulse.kept(); lease == 0 || kept > 0 && kept <= lease {
		return nil
	}
	sent := time.Now()
	row, err := ask(context.Background(), b.turn, (*db.Queries).PoolOpen, timeouts{}.of(lease).idleInTransaction)
	if err == nil && row.Pid != s.pid {
		err = ErrPooler
	}
	if err != nil {
		return err
	}
	b.warnLeaseless(s.savedSettings)
	s.pulse.keep(lease)
	b.led.own(s, lease, sent)
	s.pulse.next()
	return nil
}

// unlockOverdue unlocks the locks that have expired or were dropped.
func (b batcher) unlockOverdue() {
	if b.s.over() != nil {
		return
	}
	if err := b.settle(); err != nil && b.led.alive() == nil {
		b.destroy(err)
	}
}

// endBehindPooler ends the session, because the backend pid answered, which is
// not the one that has its locks: a pooler is in between.
func (b batcher) endBehindPooler(pid int32) {
	if h := b.led.any(); h != nil {
		wrongBackend(b.turn, h, pid)
	} else {
		b.destroy(ErrPooler)
	}
}

// giveBack gives the connection back if the session is not used, and reports
// whether it did.
func (b batcher) giveBack() bool {
	if !b.led.empty() || !b.s.p.sessions.forget(b.s, true) {
		return false
	}
	if err := b.s.close(b.turn); err != nil {
		b.log.Warn("pglock: an idle session could not be closed in good order", "err", err)
	}
	return true
}
