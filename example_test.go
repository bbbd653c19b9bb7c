package swanlock_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

// The examples lock in memory; a pglock.Pool takes the same calls.

// Wait for the lock, work while it is held, and release it however that ends.
func ExampleDo() {
	locks := memlock.New()
	err := swanlock.Do(context.Background(), locks, "/ducklake/checkpoint", func(ctx context.Context, held swanlock.DistributedLock) error {
		fmt.Println("checkpointing", held.Info().Target)
		return nil // pass ctx on: it ends if the lock is lost
	}, swanlock.WithTTL(30*time.Second), swanlock.WithAutoRefresh())
	fmt.Println(err)
	// Output:
	// checkpointing /ducklake/checkpoint
	// <nil>
}

// Work that the TTL overtakes is told to stop, and why.
func ExampleDo_expired() {
	err := swanlock.Do(context.Background(), memlock.New(), "/slow", func(ctx context.Context, _ swanlock.DistributedLock) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}, swanlock.WithTTL(10*time.Millisecond))
	fmt.Println(errors.Is(err, swanlock.ErrExpired))
	// Output: true
}

// A leader serves for as long as it leads. The context that it serves under
// ends with the lock, and tells why.
func ExampleWithLock() {
	locks := memlock.New()
	ctx := context.Background()
	serve := func(ctx context.Context) error {
		locks.Lose("/leader", errors.New("the server restarted")) // as it may at any time
		<-ctx.Done()
		return context.Cause(ctx)
	}

	lead := func() error {
		held, err := locks.Acquire(ctx, "/leader")
		if err != nil {
			return err
		}
		defer held.Release(ctx)
		leading, cancel := swanlock.WithLock(ctx, held)
		defer cancel()
		return serve(leading) // its context ends with the lock; context.Cause tells why
	}
	fmt.Println(errors.Is(lead(), swanlock.ErrLost), ctx.Err())
	// Output: true <nil>
}

// One of several hosts does the job; the others go on to something else. A host
// that is to stop does neither, so each looks at its context first.
func ExampleLocker() {
	var locks swanlock.Locker = memlock.New()
	nightly := func(ctx context.Context, host string) {
		held, err := locks.TryAcquire(ctx, "/jobs/nightly", swanlock.WithOwner(host))
		switch {
		case err == nil:
			fmt.Println(host, "runs the job")
			_ = held // released when the night is over
		case ctx.Err() != nil:
			fmt.Println(host, "stops:", context.Cause(ctx))
		case errors.Is(err, swanlock.ErrNotAcquired):
			fmt.Println(host, "leaves it to another")
		default:
			fmt.Println(err)
		}
	}
	nightly(context.Background(), "blue")
	nightly(context.Background(), "green")
	stopping, stop := context.WithCancelCause(context.Background())
	stop(errors.New("shutdown"))
	nightly(stopping, "red")
	// Output:
	// blue runs the job
	// green leaves it to another
	// red stops: shutdown
}

// Each grant has a higher fence than all before it. Storage that remembers the
// highest it has seen keeps out a holder that does not know yet that it is late.
func ExampleWithFence() {
	locks, ctx := memlock.New(), context.Background()
	var seen uint64
	write := func(held swanlock.DistributedLock) {
		if held.Info().Fence < seen {
			fmt.Println("refused: a later holder has written")
			return
		}
		seen = held.Info().Fence
		fmt.Println("written")
	}

	late, err := locks.Acquire(ctx, "/table", swanlock.WithFence(), swanlock.WithTTL(10*time.Millisecond))
	if err != nil {
		fmt.Println(err)
		return
	}
	next, err := locks.Acquire(ctx, "/table", swanlock.WithFence()) // once the TTL has run out
	if err != nil {
		fmt.Println(err)
		return
	}
	defer next.Release(ctx)
	write(next)
	write(late)
	// Output:
	// written
	// refused: a later holder has written
}

// Wait for the lock no longer than the caller has time.
func ExampleLocker_deadline() {
	locks := memlock.New()
	held, err := locks.Acquire(context.Background(), "/busy")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer held.Release(context.Background())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = locks.Acquire(ctx, "/busy")
	switch {
	case err == nil:
		fmt.Println("acquired")
	case ctx.Err() != nil: // it matches ErrNotAcquired as well
		fmt.Println("no time left:", context.Cause(ctx))
	default:
		fmt.Println(err)
	}
	// Output: no time left: context deadline exceeded
}

// Spellings of one path are one target, whichever Locker is asked.
func ExampleKeyOf() {
	fmt.Println(swanlock.KeyOf("/ducklake/checkpoint/swanlake"))
	fmt.Println(swanlock.KeyOf("/lake/t1") == swanlock.KeyOf("lake//t1/"))
	fmt.Println(swanlock.KeyOf("/lake/t1") == swanlock.KeyOf("/lake/T1"))
	// Output:
	// 1097463690975298865
	// true
	// false
}

// A printer is an observer: it prints how locks end.
type printer struct{}

func (printer) Begin(ctx context.Context, _ swanlock.Op, _ string) context.Context { return ctx }

func (printer) End(_ context.Context, e swanlock.Event) {
	switch {
	case e.Op == swanlock.OpLoss:
		fmt.Println("lost:", e.Target, e.Outcome)
	case e.Ended:
		fmt.Println("released:", e.Target)
	}
}

// Two locks end: one is released, the other's TTL runs out.
func ExampleObserve() {
	locks := swanlock.Observe(memlock.New(), printer{})
	held, err := locks.TryAcquire(context.Background(), "/lake/t1")
	if err == nil {
		err = held.Release(context.Background())
	}
	if err != nil {
		fmt.Println(err)
	}
	err = swanlock.Do(context.Background(), locks, "/lake/t2", func(ctx context.Context, _ swanlock.DistributedLock) error {
		<-ctx.Done()
		return nil
	}, swanlock.WithTTL(10*time.Millisecond))
	fmt.Println(errors.Is(err, swanlock.ErrExpired))
	// Output:
	// released: /lake/t1
	// lost: /lake/t2 expired
	// true
}

// A function far from where the lock was taken makes sure that it is held.
func ExampleHeld() {
	write := func(ctx context.Context) error {
		if err := swanlock.Held(ctx, "/lake/t1"); err != nil {
			return err
		}
		fmt.Println("written")
		return nil
	}
	err := swanlock.Do(context.Background(), memlock.New(), "/lake/t1", func(ctx context.Context, _ swanlock.DistributedLock) error {
		return write(ctx)
	})
	fmt.Println(err)
	fmt.Println(errors.Is(write(context.Background()), swanlock.ErrNotAcquired))
	// Output:
	// written
	// <nil>
	// true
}
