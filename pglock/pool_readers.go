package pglock

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// readers looks for the readers among the ops. To the server, the readers of a
// key on one session are one lock, so only one op of a key takes or frees it:
// the others have that one's answer, or that of one look at the server if other
// readers have the lock already, or keep it. It returns the ops that are still
// to be sent.
func (b batcher) readers(releases, acquires []*op) (unlocks, locks []*op) {
	if !slices.ContainsFunc(releases, (*op).shared) && !slices.ContainsFunc(acquires, (*op).shared) {
		return releases, acquires
	}
	stay := make(map[Key]int) // how many readers keep the lock
	for _, o := range releases {
		if o.h.Shared {
			if _, ok := stay[o.h.key]; !ok {
				stay[o.h.key] = b.led.readersOf(o.h.key)
			}
			stay[o.h.key]--
		}
	}
	var asking []*op
	lead := func(ops []*op) {
		leaders := make(map[Key]*op)
		for _, o := range ops {
			if !o.h.Shared {
				continue
			}
			n, ok := stay[o.h.key]
			if !ok {
				n = b.led.readersOf(o.h.key)
				stay[o.h.key] = n
			}
			switch leader := leaders[o.h.key]; {
			case n > 0:
				o.stays = true
				asking = append(asking, o)
			case leader != nil:
				o.leader = leader
				leader.h.line |= o.h.line // 0, or the hash of the key's line
			default:
				leaders[o.h.key] = o
			}
		}
	}
	lead(releases)
	lead(acquires)
	if len(asking) == 0 {
		return releases, acquires
	}
	done := b.askForReaders(asking)
	over := func(o *op) bool { return done[o] }
	return slices.DeleteFunc(releases, over), slices.DeleteFunc(acquires, over)
}

// askForReaders asks whether the session still has the locks of the ops, for
// other readers, and whether somebody waits for them. It returns the ops that
// this has ended. The others have rows to be written.
func (b batcher) askForReaders(ops []*op) (done map[*op]bool) {
	sent := time.Now()
	row, err := look(context.Background(), b.turn, (*db.Queries).Readers, db.ReadersParams{Keys: keys(ops), Below: array(ops, func(o *op) int64 {
		if o.below > 0 {
			return int64(o.below)
		}
		return math.MaxInt64
	})})
	switch {
	case err == nil && row.Pid != b.s.pid:
		b.endBehindPooler(row.Pid)
		err = ErrPooler
	case err == nil && len(row.Answers) != len(ops):
		err = errors.New("the server has not answered for all readers")
	case err == nil:
		b.led.touch(sent)
	}
	done = make(map[*op]bool)
	for i, o := range ops {
		done[o] = true
		switch {
		case err != nil && o.kind == acquiring:
			o.err = explain(err, false)
		case err != nil, o.kind == releasing && row.Answers[i] == '0':
			b.sendOne(o)
		case o.kind == acquiring && row.Answers[i] != '2':
			o.err = swanlock.ErrNotAcquired
		case b.audit:
			done[o] = false
		case o.kind == acquiring:
			b.granted([]*op{o}, db.BatchAuditedRow{Pid: row.Pid}, nil, sent)
		default:
			o.err = b.released(o.h, true)
		}
	}
	return done
}

// acquire sends an acquire, or asks for the lock that other readers have, or both.
func (b batcher) acquire(o *op) {
	_, acquires := b.readers(nil, []*op{o})
	batch{batcher: b, acquires: acquires}.send()
}
