package pglock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// This file is what the leader of a line sends.

// fail ends the ops of a session that is dead.
func (ln *line) fail(batch []*op, dead error) {
	for _, o := range batch {
		switch {
		case o.kind == acquiring:
			o.err = fmt.Errorf("%w: %w", errSessionGone, dead)
		case o.h != nil:
			o.err = o.h.over()
		}
	}
	ln.beat.Stop()
	ln.p.drop(ln, false)
}

// alone does o in a statement of its own.
func (ln *line) alone(ctx context.Context, o *op) {
	switch o.kind {
	case acquiring:
		if o.err = ln.stack(ctx, o); o.err == nil {
			o.err = ln.w.grant(ctx, o.h, o.r)
		}
		ln.hurry()
	case releasing:
		o.err = ln.w.unlock(ctx, o.h)
	case closing:
		o.err = ln.shut(ctx)
	}
	if dead := ln.led.alive(); dead != nil {
		ln.fail([]*op{o}, dead)
	}
}

// stack refuses a reader who would overtake a writer: the server grants a lock
// to a session that has it already, whoever waits for it.
func (ln *line) stack(ctx context.Context, o *op) error {
	if !o.r.Shared || !ln.led.reads(o.r.key) {
		return nil
	}
	var awaited bool
	err := ln.w.ask(ctx, ln.led, func(ctx context.Context) (err error) {
		awaited, err = ln.w.q.Awaited(ctx, int64(o.r.key))
		return err
	})
	switch {
	case err != nil && sqlState(err) == "":
		ln.w.destroy(ln.led, err)
		return err
	case err != nil:
		return explain(err, false)
	case awaited:
		return swanlock.ErrNotAcquired
	}
	return nil
}

// together does the ops in one statement.
func (ln *line) together(ctx context.Context, releases, acquires []*op) {
	ln.led.mu.Lock()
	ttl := ln.led.lease.ttl
	ln.led.mu.Unlock()
	shortest := ttl
	for _, o := range acquires {
		if shortest == 0 || o.r.TTL < shortest {
			shortest = o.r.TTL
		}
	}
	var params db.BatchParams
	if shortest != ttl {
		params.Lease = strconv.FormatInt(milliseconds(shortest), 10)
	}
	params.Release = ln.array(releases)
	params.Acquire = ln.array(acquires)
	sent := time.Now()
	var row db.BatchRow
	err := ln.w.ask(ctx, ln.led, func(ctx context.Context) (err error) {
		row, err = ln.w.q.Batch(ctx, params)
		return err
	})
	if err == nil && (len(row.Released) != len(releases) || len(row.Acquired) != len(acquires)) {
		err = fmt.Errorf("the server answered %d of %d unlocks and %d of %d locks", len(row.Released), len(releases), len(row.Acquired), len(acquires))
	}
	if err != nil {
		ln.untangle(ctx, releases, acquires, err)
		return
	}
	for i, o := range releases {
		o.err = ln.released(o.h, row.Released[i] == '1')
	}
	for i, o := range acquires {
		if row.Acquired[i] != '1' {
			o.err = swanlock.ErrNotAcquired
			continue
		}
		o.h.pid = row.Pid
		o.h.lease.start, o.h.info.AcquiredAt = sent, sent
		ln.led.add(o.h, ln.before)
	}
	ln.led.touch(sent)
	ln.hurry()
}

// array writes the keys of ops as PostgreSQL does.
func (ln *line) array(ops []*op) string {
	b := append(ln.keys[:0], '{')
	for i, o := range ops {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(o.h.id.key), 10)
	}
	ln.keys = append(b, '}')
	return string(ln.keys)
}

// released notes what the server said of an unlock.
func (ln *line) released(h *hold, held bool) error {
	ln.led.mu.Lock()
	if held {
		h.end(swanlock.ErrReleased)
	} else {
		h.end(fmt.Errorf("%w: the session did not hold it any more", swanlock.ErrLost))
	}
	err, ttl := h.err, ln.led.lease.ttl
	ln.led.mu.Unlock()
	ln.led.remove(h, ttl)
	if errors.Is(err, swanlock.ErrReleased) {
		return nil
	}
	return err
}

// untangle asks the session what it holds after a batch that failed with err:
// some of its calls may have been made. What was granted is given back.
func (ln *line) untangle(ctx context.Context, releases, acquires []*op, err error) {
	held, unknown := map[Key]bool(nil), err
	if sqlState(err) != "" {
		held, unknown = ln.held(ctx)
	}
	if unknown == nil {
		for _, o := range acquires {
			o.err = explain(err, false)
			if !held[o.h.id.key] {
				continue
			}
			o.h.pid = ln.pid
			var row db.ReleaseRow
			if row, unknown = ln.w.release(ctx, o.h, timeouts{}, false); unknown != nil || !row.Released {
				unknown = errors.Join(err, unknown)
				break
			}
		}
	}
	if unknown != nil {
		ln.w.destroy(ln.led, err)
		ln.fail(releases, err)
		ln.fail(acquires, err)
		return
	}
	for _, o := range releases {
		if held[o.h.id.key] {
			o.err = ln.w.unlock(ctx, o.h)
		} else {
			o.err = ln.released(o.h, false)
		}
	}
}

// held asks the session for the keys of its locks.
func (ln *line) held(ctx context.Context) (map[Key]bool, error) {
	keys := make(map[Key]bool)
	err := ln.w.ask(ctx, ln.led, func(ctx context.Context) error {
		rows, err := ln.w.q.HeldKeys(ctx)
		for _, row := range rows {
			keys[Key(row.Key)] = true
		}
		return err
	})
	return keys, err
}

// interval is how often the session is to prove its locks.
func (ln *line) interval() time.Duration {
	ln.led.mu.Lock()
	defer ln.led.mu.Unlock()
	if ttl := ln.led.lease.ttl; ttl > 0 {
		return min(ttl/3, ln.p.heartbeat)
	}
	return ln.p.heartbeat
}

// hurry sets the heartbeat for a lease that has become shorter.
func (ln *line) hurry() {
	if every := ln.interval(); every < ln.every {
		ln.every = every
		ln.beat.Reset(every)
	}
}

// heartbeat proves the session's locks. It is what ln.beat does.
func (ln *line) heartbeat() {
	if err := ln.do(context.Background(), &op{kind: refreshing}); err != nil {
		ln.p.log.Warn("pglock: heartbeat failed", "err", err)
	}
}

// flush unlocks what has ended by itself.
func (ln *line) flush() { ln.do(context.Background(), &op{kind: flushing}) }

// prove asks the server for the number of the session's locks and the sum of
// their keys, which is as good as all of them, and renews the leases: the
// session's, that of each lock whose refresh is in the batch, and those that
// refresh themselves.
func (ln *line) prove(ctx context.Context, batch []*op) {
	locks, sum, shortest := ln.expected()
	params := ""
	if shortest > 0 {
		params = strconv.FormatInt(milliseconds(shortest), 10)
	}
	sent := time.Now()
	var row db.HeartbeatRow
	err := ln.w.ask(ctx, ln.led, func(ctx context.Context) (err error) {
		row, err = ln.w.q.Heartbeat(ctx, params)
		return err
	})
	dead := err != nil && sqlState(err) == ""
	if !dead && (err != nil || row.Locks != locks || row.Sum != sum) {
		if again := ln.missing(ctx); again != nil {
			dead, err = true, again
		}
	}
	if dead {
		ln.w.destroy(ln.led, err)
		for _, o := range batch {
			if o.kind == refreshing {
				ln.fail([]*op{o}, err)
			}
		}
		return
	}
	ln.led.mu.Lock()
	if err == nil {
		ln.led.lease.start = sent
		if shortest > 0 {
			ln.led.lease.ttl = shortest
		}
		for _, h := range ln.led.locks {
			if h.err == nil && h.renew {
				h.lease.start = sent
			}
		}
	}
	for _, o := range batch {
		switch {
		case o.kind != refreshing:
		case o.h == nil:
			o.err = err
		default:
			o.h.expire(sent)
			if o.err = o.h.err; o.err == nil {
				o.err = err
			}
			if o.err == nil {
				o.h.lease.start = sent
			}
		}
	}
	ln.led.mu.Unlock()
	ln.every = ln.interval()
	ln.beat.Reset(ln.every)
	ln.rest(ctx)
}

// expected is what a heartbeat should find, and the lease that the locks want.
func (ln *line) expected() (locks, sum int64, shortest time.Duration) {
	ln.led.mu.Lock()
	defer ln.led.mu.Unlock()
	readers := make(map[Key]bool)
	for id, h := range ln.led.locks {
		if ttl := h.info.TTL; ttl > 0 && (shortest == 0 || ttl < shortest) {
			shortest = ttl
		}
		if id.reader > 0 { // they stack: the server shows one
			if readers[id.key] {
				continue
			}
			readers[id.key] = true
		}
		locks++
		sum += int64(uint64(id.key)>>32) + int64(uint64(id.key)&0xffffffff)
	}
	return locks, sum, shortest
}

// missing finds which locks the session has lost, and ends them.
func (ln *line) missing(ctx context.Context) error {
	held, err := ln.held(ctx)
	if err != nil {
		return err
	}
	ln.led.mu.Lock()
	var lost []*hold
	for id, h := range ln.led.locks {
		if !held[id.key] {
			lost = append(lost, h)
		}
	}
	ttl := ln.led.lease.ttl
	ln.led.mu.Unlock()
	for _, h := range lost {
		h.lose(errors.New("the session does not hold it any more"))
		ln.led.remove(h, ttl)
	}
	return nil
}

// rest gives the connection back when the session has held nothing for long.
func (ln *line) rest(ctx context.Context) {
	const long = time.Minute
	ln.p.mu.Lock()
	unused := ln.locks == 0
	if !unused {
		ln.idle = time.Time{}
	} else if ln.idle.IsZero() {
		ln.idle = time.Now()
	}
	done := unused && time.Since(ln.idle) > long
	ln.p.mu.Unlock()
	if done && ln.p.drop(ln, true) {
		if err := ln.shut(ctx); err != nil {
			ln.p.log.Warn("pglock: closing an idle session", "err", err)
		}
	}
}

// shut releases what the session still holds and gives the connection back as
// it was.
func (ln *line) shut(ctx context.Context) error {
	ln.beat.Stop()
	var errs []error
	for _, h := range ln.led.takenBy(ln.w) {
		errs = append(errs, ln.w.unlock(ctx, h))
	}
	if ln.leased && ln.led.alive() == nil {
		if err := ln.w.ask(ctx, ln.led, func(ctx context.Context) error {
			_, err := ln.w.q.Heartbeat(ctx, ln.before.idle)
			return err
		}); err != nil {
			ln.w.destroy(ln.led, err)
		}
	}
	ln.led.mu.Lock()
	ln.led.pool, ln.led.lease.ttl = nil, 0
	ln.led.mu.Unlock()
	ln.closed = true
	return errors.Join(append(errs, ln.w.forget(), ln.w.conn.Close())...)
}
