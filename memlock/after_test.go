package memlock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

// TestAfterDone: a function is called once, with what Err returns, when the lock ends,
// and at once if it is over; stop prevents that.
func TestAfterDone(t *testing.T) {
	for want, end := range map[error]func(l *memlock.Locker, held swanlock.DistributedLock){
		swanlock.ErrExpired:  func(*memlock.Locker, swanlock.DistributedLock) { time.Sleep(time.Minute) },
		swanlock.ErrLost:     func(l *memlock.Locker, _ swanlock.DistributedLock) { l.Lose("t", nil) },
		swanlock.ErrReleased: func(_ *memlock.Locker, held swanlock.DistributedLock) { _ = held.Release(context.Background()) },
	} {
		synctest.Test(t, func(t *testing.T) {
			l := memlock.New()
			held, err := l.TryAcquire(t.Context(), "t", swanlock.WithTTL(time.Minute))
			if err != nil {
				t.Fatal(err)
			}
			lock := held.(interface{ AfterDone(func(error)) func() bool })
			var told []error
			call := func(err error) { told = append(told, err) }
			lock.AfterDone(call)
			stop := lock.AfterDone(func(error) { t.Errorf("%v: called after stop", want) })
			if !stop() || stop() {
				t.Errorf("%v: stop did nothing, or twice", want)
			}
			end(l, held)
			if synctest.Wait(); len(told) != 1 {
				t.Errorf("%v: told %v at its end", want, told)
			}
			late := lock.AfterDone(call)
			synctest.Wait()
			if len(told) != 2 || told[0] != held.Err() || told[1] != held.Err() || !errors.Is(held.Err(), want) || late() {
				t.Errorf("told %v, want %v twice", told, held.Err())
			}
		})
	}
}
