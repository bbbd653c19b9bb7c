package verify

import (
	"context"
	"time"
)

// The faults of this file make everything slow, or one part of it, and end
// nothing: while they last verify's own bystanders hold locks that they must not
// lose.

// begin reports whether such a fault may begin, of which there is one at a
// time, and returns how long it is to last.
func (in *injector) begin(most time.Duration) (length time.Duration, ok bool) {
	if in.slow.Swap(true) {
		return 0, false
	}
	if in.short {
		return 500*time.Millisecond + time.Duration(in.rnd.Int64N(int64(500*time.Millisecond))), true
	}
	return time.Second + time.Duration(in.rnd.Int64N(int64(most-time.Second))), true
}

// lockTable locks the audit's table for a while, so that statements of audited
// locks wait.
func (in *injector) lockTable(ctx context.Context) (bool, error) {
	length, ok := in.begin(7 * time.Second)
	if !ok {
		return false, nil
	}
	in.group.Go(func() {
		defer in.slow.Store(false)
		in.watch(ctx, FaultLock, func(others *bystanders) {
			for range 5 { // the pool may hand out connections that a restart has ended
				if in.lockTableFor(ctx, length, others) == nil {
					return
				}
			}
		})
	})
	return true, nil
}

func (in *injector) lockTableFor(ctx context.Context, length time.Duration, others *bystanders) error {
	tx, err := in.d.db.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if _, err := tx.Exec("SET LOCAL lock_timeout = '5s'"); err != nil {
		return err
	}
	f := Fault{Kind: FaultLock, Span: Span{Call: now()}}
	if _, err = tx.Exec("LOCK TABLE lock_audit IN ACCESS EXCLUSIVE MODE"); err != nil {
		return err
	}
	others.call(ctx)
	pause(ctx, length)
	tx.Rollback()
	f.Return = now()
	in.done(f)
	return nil
}

// pauseServer stops the whole server for a while. Meanwhile no other fault
// begins.
func (in *injector) pauseServer(ctx context.Context) (done bool, err error) {
	if in.slow.Swap(true) {
		return false, nil
	}
	defer in.slow.Store(false)
	in.watch(ctx, FaultPause, func(others *bystanders) {
		f := Fault{Kind: FaultPause, Span: Span{Call: now()}}
		var resume func()
		if resume, err = in.pause(); err != nil {
			return
		}
		others.call(ctx)
		pause(ctx, pauseLength)
		resume()
		f.Return = now()
		in.done(f)
	})
	return err == nil, err
}

// pauseLength is longer than pglock's patience with a statement, and shorter than
// what a lock without a TTL can wait.
const pauseLength = 6 * time.Second

// silence makes the network pass nothing on, on new connections neither. In the
// end all of it is passed on, or all connections are closed.
func (in *injector) silence(ctx context.Context) (bool, error) {
	length, ok := in.begin(6 * time.Second)
	if !ok {
		return false, nil
	}
	closes := in.rnd.IntN(3) == 0
	in.group.Go(func() {
		defer in.slow.Store(false)
		if closes {
			in.silenceFor(ctx, length, true, nil)
			return
		}
		in.watch(ctx, FaultSilence, func(others *bystanders) { in.silenceFor(ctx, length, false, others) })
	})
	return true, nil
}

func (in *injector) silenceFor(ctx context.Context, length time.Duration, closes bool, others *bystanders) {
	f := Fault{Kind: FaultSilence, Span: Span{Call: now()}}
	in.proxy.network.set(true, 0)
	others.call(ctx)
	pause(ctx, length)
	if closes {
		c := Fault{Kind: FaultSilence, Detail: detailClose, Span: Span{Call: now()}}
		in.proxy.closeLinks()
		c.Return = now()
		in.done(c)
	}
	in.proxy.network.set(false, 0)
	f.Return = now()
	in.done(f)
}
