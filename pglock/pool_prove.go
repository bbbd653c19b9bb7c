package pglock

import (
	"context"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// prove asks the server for the number of the session's locks and the sum of
// their keys. If both are as expected, so is every lock, since no other program
// uses the session. It then renews the session's lease, the TTL of each lock
// whose refresh is among the proofs, and the TTL of those that refresh
// themselves.
func (b batcher) prove(proofs []*op) {
	s := b.s
	rows := b.rowsToRefresh(proofs)
	sent := time.Now()
	row, proven, err := b.askForAll(rows)
	if rows != "" && sqlState(err) != "" { // The rows could not be written.
		rows, sent = "", time.Now()
		row, proven, err = b.askForAll(rows)
	}
	b.counts.heartbeat(sent)
	switch {
	case err == nil && row.Pid != s.pid:
		b.endBehindPooler(row.Pid)
	case err != nil && sqlState(err) == "":
		b.destroy(err)
	case !proven:
		if unknown := b.reconcile(); unknown != nil {
			b.destroy(unknown)
		}
	}
	if b.led.alive() != nil {
		s.failAll(proofs)
		return
	}
	written := rows != "" && proven
	if err == nil {
		asked := make(map[*hold]bool, len(proofs))
		for _, o := range proofs {
			asked[o.h] = true
		}
		b.led.renewed(sent, func(h *hold) bool {
			return asked[h] && (h.audit == 0 || written) || h.audit == 0 && h.AutoRefresh
		})
	}
	for _, o := range proofs {
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

// askForAll sends the statement of prove, which also refreshes the rows given. It
// reports whether that has proven all locks.
func (b batcher) askForAll(rows string) (row db.HeartbeatRow, proven bool, err error) {
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

// rowsToRefresh returns the ids of the audit's rows that the proofs are to
// refresh, or "" if there is none, or one that is in another table by now.
func (b batcher) rowsToRefresh(proofs []*op) string {
	var ids []int64
	for _, o := range proofs {
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
func (b batcher) reconcile() error {
	held, err := b.held(context.Background())
	if err != nil {
		return err
	}
	ours := b.led.holds()
	for _, h := range ours {
		if shared, ok := held[h.key]; !ok || shared != h.Shared {
			b.proven(h, db.RefreshRow{Pid: h.pid})
		}
	}
	for _, h := range ours {
		delete(held, h.key)
	}
	for key, shared := range held {
		if err := b.unlockIfHeld(key, shared); err != nil {
			return err
		}
	}
	return nil
}

// shortenLease gives the session the lease that its newest lock needs.
func (b batcher) shortenLease() error {
	s := b.s
	lease := s.leaseNow()
	if kept := time.Duration(s.serverLease.Load()); lease == 0 || kept > 0 && kept <= lease {
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
	s.kept(lease)
	b.led.shorten(lease, sent)
	s.heartbeatTimer.Reset(s.every())
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
		b.wrongBackend(h, pid)
	} else {
		b.destroy(ErrPooler)
	}
}
