package mocks_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
)

func TestLockerGrants(t *testing.T) {
	var l mocks.Locker
	ctx := context.Background()
	first, err := l.TryAcquire(ctx, "t", swanlock.WithTTL(time.Minute), swanlock.WithOwner("me"), swanlock.WithFence())
	if err != nil {
		t.Fatal(err)
	}
	second, err := l.Acquire(ctx, "t", swanlock.WithFence())
	if err != nil {
		t.Fatal(err)
	}
	got, want := first.Info(), swanlock.Info{Target: "t", Owner: "me", TTL: time.Minute, Fence: 1}
	if got.AcquiredAt.IsZero() {
		t.Error("no AcquiredAt")
	}
	got.AcquiredAt = time.Time{}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if second.Info().Fence <= got.Fence {
		t.Errorf("the second fence is %d, after %d", second.Info().Fence, got.Fence)
	}
	if err := swanlock.Do(ctx, &l, "u", func(context.Context, swanlock.DistributedLock) error { return nil }); err != nil {
		t.Error(err)
	}
}

func TestLockerRefuses(t *testing.T) {
	var l mocks.Locker
	ctx, cancel := context.WithCancelCause(context.Background())
	if _, err := l.TryAcquire(ctx, ""); err == nil {
		t.Error("an empty target was granted")
	}
	if _, err := l.TryAcquire(ctx, "t", swanlock.WithShared(), swanlock.WithFence()); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("a shared fence: %v", err)
	}
	gone := errors.New("gone")
	cancel(gone)
	if _, err := l.Acquire(ctx, "t"); !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, gone) {
		t.Errorf("an ended context: %v", err)
	}
}

func TestLockerCalls(t *testing.T) {
	lock, busy := &mocks.DistributedLock{}, errors.New("busy")
	l := mocks.Locker{
		TryAcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return nil, busy },
		AcquireFunc:    func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return lock, nil },
	}
	type key struct{}
	ctx := context.WithValue(context.Background(), key{}, 1)
	if _, err := l.TryAcquire(ctx, "a", swanlock.WithShared()); err != busy {
		t.Errorf("got %v, want %v", err, busy)
	}
	if got, err := l.Acquire(ctx, "b", swanlock.WithTTL(time.Hour)); got != lock || err != nil {
		t.Errorf("got %v, %v", got, err)
	}
	got := l.Calls()
	if len(got) != 2 {
		t.Fatalf("%d calls, want 2", len(got))
	}
	if c := got[0]; c.Method != "TryAcquire" || c.Target != "a" || !c.Options.Shared || c.Err != busy || c.Lock != nil || c.Context != ctx {
		t.Errorf("first call: %+v", c)
	}
	if c := got[1]; c.Method != "Acquire" || c.Target != "b" || c.Options.TTL != time.Hour || c.Err != nil || c.Lock != lock {
		t.Errorf("second call: %+v", c)
	}
}

func isDone(l swanlock.DistributedLock) bool {
	select {
	case <-l.Done():
		return true
	default:
		return false
	}
}

func TestLockLives(t *testing.T) {
	ctx := context.Background()
	var l mocks.DistributedLock
	if err := l.Refresh(ctx); err != nil || l.Err() != nil || isDone(&l) {
		t.Errorf("held: refresh %v, err %v, done %v", err, l.Err(), isDone(&l))
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := l.Refresh(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("refresh with an ended context: %v", err)
	}
	if err := l.Release(ended); err != nil {
		t.Errorf("release: %v", err)
	}
	if !isDone(&l) || !errors.Is(l.Err(), swanlock.ErrReleased) || !errors.Is(l.Refresh(ctx), swanlock.ErrReleased) {
		t.Errorf("released: done %v, err %v", isDone(&l), l.Err())
	}
	if err := l.Release(ctx); err != nil {
		t.Errorf("second release: %v", err)
	}
	l.Lose(nil)
	if !errors.Is(l.Err(), swanlock.ErrReleased) {
		t.Errorf("lost after its release: %v", l.Err())
	}
	var methods []string
	for _, c := range l.Calls() {
		methods = append(methods, c.Method)
	}
	if len(methods) != 5 || methods[0] != "Refresh" || methods[2] != "Release" {
		t.Errorf("calls: %v", methods)
	}
}

func TestLockLost(t *testing.T) {
	ctx, cause := context.Background(), errors.New("cause")
	for name, lose := range map[string]func(*mocks.DistributedLock){
		"Lose": func(l *mocks.DistributedLock) { l.Lose(cause) },
		"RefreshFunc": func(l *mocks.DistributedLock) {
			l.RefreshFunc = func(context.Context) error { return errors.Join(swanlock.ErrLost, cause) }
			l.Refresh(ctx)
		},
	} {
		var l mocks.DistributedLock
		lose(&l)
		if !isDone(&l) || !errors.Is(l.Err(), swanlock.ErrLost) || !errors.Is(l.Err(), cause) {
			t.Errorf("%s: done %v, err %v", name, isDone(&l), l.Err())
		}
		if err := l.Refresh(ctx); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("%s: refresh: %v", name, err)
		}
		if err := l.Release(ctx); !errors.Is(err, cause) {
			t.Errorf("%s: release: %v", name, err)
		}
		if err := l.Release(ctx); err != nil {
			t.Errorf("%s: second release: %v", name, err)
		}
	}
	var l mocks.DistributedLock
	l.Lose(swanlock.ErrExpired)
	if l.Err() != swanlock.ErrExpired {
		t.Errorf("got %v, want %v", l.Err(), swanlock.ErrExpired)
	}
}

func TestLockFunctions(t *testing.T) {
	ctx, failed := context.Background(), errors.New("failed")
	done := make(chan struct{})
	l := mocks.DistributedLock{
		InfoFunc:    func() swanlock.Info { return swanlock.Info{Fence: 7} },
		RefreshFunc: func(context.Context) error { return failed },
		ReleaseFunc: func(context.Context) error { return failed },
		DoneFunc:    func() <-chan struct{} { return done },
	}
	if l.Info().Fence != 7 || l.Refresh(ctx) != failed || isDone(&l) || l.Err() != nil {
		t.Errorf("held: info %+v, err %v", l.Info(), l.Err())
	}
	close(done)
	if !errors.Is(l.Err(), swanlock.ErrLost) {
		t.Errorf("its channel closed: %v", l.Err())
	}
	for range 2 {
		if err := l.Release(ctx); err != failed {
			t.Errorf("release: %v, want %v each time", err, failed)
		}
	}
	l.ErrFunc = func() error { return failed }
	if l.Err() != failed {
		t.Errorf("got %v, want %v", l.Err(), failed)
	}
	for reported, want := range map[error]error{failed: swanlock.ErrReleased, swanlock.ErrExpired: swanlock.ErrExpired, nil: swanlock.ErrReleased} {
		l := mocks.DistributedLock{ReleaseFunc: func(context.Context) error { return reported }}
		if l.Release(ctx); !errors.Is(l.Err(), want) || !isDone(&l) {
			t.Errorf("released with %v: err %v, done %v", reported, l.Err(), isDone(&l))
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	var l mocks.Locker
	var wg sync.WaitGroup
	ctx := context.Background()
	held, _ := l.Acquire(ctx, "shared by all")
	for range 8 {
		wg.Go(func() {
			for range 50 {
				own, _ := l.TryAcquire(ctx, "t", swanlock.WithFence())
				own.Release(ctx)
				held.Refresh(ctx)
				held.Err()
				l.Calls()
			}
			held.(*mocks.DistributedLock).Lose(nil)
			held.Release(ctx)
		})
	}
	wg.Wait()
	<-held.Done()
	if got, want := len(l.Calls()), 8*50+1; got != want {
		t.Errorf("%d calls, want %d", got, want)
	}
	if got, want := len(held.(*mocks.DistributedLock).Calls()), 8*50+8; got != want {
		t.Errorf("%d calls of the lock, want %d", got, want)
	}
}

func TestLockDeadline(t *testing.T) {
	ctx := context.Background()
	var l mocks.Locker
	held, err := l.TryAcquire(ctx, "t", swanlock.WithTTL(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	want := held.Info().AcquiredAt.Add(time.Hour)
	if got, ok := held.Deadline(); !ok || !got.Equal(want) {
		t.Errorf("granted: got %v, %t; want %v", got, ok, want)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if err := held.Refresh(ended); err == nil {
		t.Fatal("Refresh with a context that has ended returned nil")
	}
	if got, ok := held.Deadline(); !ok || !got.Equal(want) {
		t.Errorf("after a Refresh that failed: got %v, %t; want %v", got, ok, want)
	}
	before := time.Now()
	if err := held.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if got, ok := held.Deadline(); !ok || got.Before(before.Add(time.Hour)) || got.After(time.Now().Add(time.Hour)) {
		t.Errorf("refreshed: got %v, %t; want an hour from now", got, ok)
	}

	if held, err = l.TryAcquire(ctx, "t"); err != nil {
		t.Fatal(err)
	}
	if err := held.Refresh(ctx); err != nil {
		t.Fatal(err)
	}
	if got, ok := held.Deadline(); ok {
		t.Errorf("without a TTL: got %v, true; want false", got)
	}

	set := time.Now().Add(time.Minute)
	lock := &mocks.DistributedLock{DeadlineFunc: func() (time.Time, bool) { return set, true }}
	if got, ok := lock.Deadline(); !ok || !got.Equal(set) {
		t.Errorf("DeadlineFunc: got %v, %t; want %v", got, ok, set)
	}
}
