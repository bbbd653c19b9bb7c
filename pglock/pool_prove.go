package pglock

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// A proof is a heartbeat, and does the refreshes that wait for one. It asks the
// server for the number of the session's locks and the sum of their keys. If both
// are as expected, so is every lock, since no other program uses the session.
type proof struct {
	batcher
	ops []*op
}

// send sends the heartbeat. It then renews the session's lease, the TTL of each lock
// whose refresh is among the ops, and the TTL of those that refresh themselves.
func (b proof) send() {
	rows := b.rows()
	sent := time.Now()
	row, proven, err := b.ask(rows)
	if rows != "" && sqlState(err) != "" { // The rows could not be written.
		rows, sent = "", time.Now()
		row, proven, err = b.ask(rows)
	}
	b.counts.heartbeat(sent)
	switch {
	case err == nil && row.Pid != b.s.pid:
		b.endBehindPooler(row.Pid)
	case err != nil && sqlState(err) == "":
		b.destroy(err)
	case !proven:
		if unknown := b.reconcile(); unknown != nil {
			b.destroy(unknown)
		}
	}
	if b.led.alive() != nil {
		b.failAll(b.ops)
		return
	}
	written := rows != "" && proven
	if err == nil {
		asked := make(map[*hold]bool, len(b.ops))
		for _, o := range b.ops {
			asked[o.h] = true
		}
		b.led.renewed(sent, func(h *hold) bool {
			return asked[h] || h.audit == 0 && h.AutoRefresh
		})
	}
	for _, o := range b.ops {
		if o.err = explain(err, false); o.h == nil {
			continue
		}
		if over := o.h.over(); over != nil {
			o.err = over
		} else if o.h.audit != 0 && !written {
			b.sendOne(o)
		}
	}
	b.rest()
}

// ask sends the statement, which also refreshes the rows given. It reports whether
// that has proven all locks.
func (b proof) ask(rows string) (row db.HeartbeatRow, proven bool, err error) {
	locks, sum := b.led.expected()
	err = b.do(context.Background(), func(ctx context.Context) (err error) {
		if rows == "" {
			row, err = b.q.Heartbeat(ctx)
			return err
		}
		audited, err := b.auditIn(b.led.schema).HeartbeatAudited(ctx, db.HeartbeatAuditedParams{Locks: locks, Sum: sum, Ids: rows})
		row = db.HeartbeatRow(audited)
		return err
	})
	return row, err == nil && row.Locks == locks && row.Sum == sum, err
}

// rows returns the ids of the audit's rows that are to be refreshed, or "" if there
// is none, or one that is in another table by now.
func (b proof) rows() string {
	var ids []int64
	for _, o := range b.ops {
		if o.h == nil || o.h.audit == 0 || o.h.over() != nil {
			continue
		}
		if o.h.schema != b.led.schema {
			return ""
		}
		ids = append(ids, o.h.audit)
	}
	if ids == nil {
		return ""
	}
	return array(ids, func(id int64) int64 { return id })
}

// reconcile ends the locks that the session has lost, and unlocks those that it
// has and that are not in the ledger.
func (b proof) reconcile() error {
	held, err := heldKeys(context.Background(), b.turn)
	if err != nil {
		return err
	}
	ours := b.led.holds()
	for _, h := range ours {
		if shared, ok := held[h.key]; !ok || shared != h.Shared {
			proven(b.turn, h, db.RefreshRow{Pid: h.pid})
		}
	}
	for _, h := range ours {
		delete(held, h.key)
	}
	for key, shared := range held {
		if err := unlockIfHeld(b.turn, key, shared); err != nil {
			return err
		}
	}
	return nil
}

// rest ends a heartbeat: it sets the timer for the next, or gives the
// connection back if the session has held nothing for long.
func (b proof) rest() {
	const long = time.Minute
	s := b.s
	if !b.led.empty() {
		s.emptySince = time.Time{}
	} else if s.emptySince.IsZero() {
		s.emptySince = time.Now()
	} else if time.Since(s.emptySince) > long && b.giveBack() {
		return
	}
	if s.p.guest.allInUse() && b.giveBack() {
		return
	}
	s.pulse.next()
}
