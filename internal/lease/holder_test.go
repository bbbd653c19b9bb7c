package lease_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// TestPatience: an answer is waited for as long as the Request says, and for no
// longer than the lease. What may have been granted is freed, which takes 5 s at
// most, and 2 s if the caller's context has ended.
func TestPatience(t *testing.T) {
	silent := errors.New("no answer")
	for name, c := range map[string]struct {
		patience, want, free time.Duration
		cut, acquired        bool
	}{
		"patience":              {patience: time.Second, want: time.Second},
		"none":                  {want: ttl},
		"longer than the lease": {patience: time.Hour, want: ttl},
		"free hangs":            {patience: time.Second, want: 6 * time.Second, free: time.Hour},
		"free hangs, cut":       {patience: time.Second, want: 2 * time.Second, free: time.Hour, cut: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := newServer(t)
				r.Patience = c.patience
				freed := false
				s.release = func(ctx context.Context) (bool, error) {
					freed = true
					if !lease.Pause(ctx, c.free) {
						return false, silent
					}
					return true, nil
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				start := time.Now()
				_, err := lease.Try(ctx, r, func(call context.Context) (uint64, error) {
					if c.cut {
						cancel()
					}
					<-call.Done()
					return 0, silent
				})
				if took := time.Since(start); took != c.want || !freed {
					t.Errorf("it took %v, want %v; freed: %t", took, c.want, freed)
				}
				// Only the end of the lease, or of ctx, says that nothing is held.
				if over := c.want == ttl || c.cut; errors.Is(err, swanlock.ErrNotAcquired) != over || !c.cut && errors.Is(err, silent) == over {
					t.Errorf("got %v", err)
				}
				if told := strings.Contains(err.Error(), "it is free after 9s"); told != (c.free > 0) {
					t.Errorf("got %v", err)
				}
				if want := `testlock: acquire "target": `; !strings.HasPrefix(err.Error(), want) {
					t.Errorf("got %v, want %s…", err, want)
				}
			})
		})
	}
}

// TestContextValues: what a client looks for in a context, as tracers do, is there.
func TestContextValues(t *testing.T) {
	type key struct{}
	s, r := newServer(t, swanlock.WithTTL(ttl))
	ctx := context.WithValue(t.Context(), key{}, "span")
	var got []any
	s.refresh = func(ctx context.Context) error { got = append(got, ctx.Value(key{})); return nil }
	s.release = func(ctx context.Context) (bool, error) { got = append(got, ctx.Value(key{})); return true, nil }
	held, err := lease.Try(ctx, r, func(ctx context.Context) (uint64, error) { got = append(got, ctx.Value(key{})); return 0, nil })
	is(t, err)
	is(t, held.Refresh(ctx))
	is(t, held.Release(ctx))
	if want := fmt.Sprint([]any{"span", "span", "span"}); fmt.Sprint(got) != want {
		t.Errorf("acquire, refresh and release found %v, want %s", got, want)
	}
}

// TestAtTheDeadline: a lock is over at its deadline, also if its timer is late.
func TestAtTheDeadline(t *testing.T) {
	for range 50 { // Timers that go off at the same time do so in any order.
		synctest.Test(t, func(t *testing.T) {
			take := func(kept bool) *lease.Lock {
				s, r := newServer(t, swanlock.WithTTL(ttl))
				s.refresh = func(context.Context) error { time.Sleep(ttl); return nil }
				r.Kept = kept
				return mustTry(t, s, r)
			}
			err, release, refresh, extend := take(false), take(false), take(false), take(true).Extender()
			answer := make(chan error)
			go func() { answer <- refresh.Refresh(context.Background()) }()
			time.Sleep(ttl)
			for what, err := range map[string]error{"Err": err.Err(), "Release": release.Release(t.Context()), "Refresh": <-answer} {
				if !errors.Is(err, swanlock.ErrExpired) {
					t.Errorf("%s at the deadline: got %v, want ErrExpired", what, err)
				}
			}
			if extend(time.Now()) {
				t.Error("it is extended at its deadline")
			}
		})
	}
}

// TestWhyItWasLost: Err says that a lock was lost, and why, also after its Release,
// and no error has a part that is missing.
func TestWhyItWasLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t, swanlock.WithTTL(ttl))
		gone := fmt.Errorf("%w: the server was reset", swanlock.ErrLost)
		expired, lost, answered := mustTry(t, s, r), mustTry(t, s, r), mustTry(t, s, r)
		lost.Loser()(gone)
		s.refresh = func(context.Context) error { return gone }
		is(t, answered.Refresh(t.Context()), gone)
		s.refresh = func(context.Context) error { return errors.New("away") }
		errs := []error{expired.Refresh(t.Context())}
		time.Sleep(ttl)
		is(t, expired.Err(), swanlock.ErrExpired)
		for _, held := range []*lease.Lock{expired, lost, answered} {
			before := held.Err()
			if _ = held.Release(t.Context()); held.Err() != before || !errors.Is(before, swanlock.ErrLost) {
				t.Errorf("Err before and after Release: %v, %v", before, held.Err())
			}
			errs = append(errs, before)
		}
		is(t, lost.Err(), gone)
		s.release = func(context.Context) (bool, error) { return false, nil }
		errs = append(errs, mustTry(t, s, r).Release(t.Context()))
		for _, err := range errs {
			if !strings.HasPrefix(err.Error(), "testlock: ") || strings.Contains(err.Error(), "%!") {
				t.Errorf("the error reads %q", err)
			}
		}
	})
}

// TestReleaseOnce: what the server would answer again is not asked again.
func TestReleaseOnce(t *testing.T) {
	wrong := errors.New("no permission")
	for want, answer := range map[error]error{wrong: lease.Refused(wrong), lease.ErrRepeated: lease.ErrRepeated} {
		s, r := newServer(t, swanlock.WithTTL(ttl))
		tries := 0
		s.release = func(context.Context) (bool, error) { tries++; return false, answer }
		if is(t, mustTry(t, s, r).Release(t.Context()), swanlock.ErrLost, want); tries != 1 {
			t.Errorf("%v: it was asked %d times", want, tries)
		}
	}
}

// TestSlowGrant: the first refresh in the background counts from the request, so
// that a grant that took most of the lease is refreshed in time.
func TestSlowGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, r := newServer(t)
		held, err := lease.Try(t.Context(), r, func(context.Context) (uint64, error) { time.Sleep(ttl - time.Second); return 0, nil })
		is(t, err)
		time.Sleep(ttl)
		if err := held.Err(); errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("it was not refreshed: %v", err)
		}
		_ = held.Release(t.Context())
	})
}

// TestPollEndsInTry: when ctx ends while it tries, the error is that of the try, with
// the outage that has not ended.
func TestPollEndsInTry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		outage := errors.New("connection refused")
		for _, before := range []error{swanlock.ErrNotAcquired, outage} {
			ctx, cancel := context.WithCancel(t.Context())
			n, cut := 0, lease.CutShort(ctx, nil)
			_, err := lease.Poll(ctx, "testlock", "target", func(err error) bool { return err == outage }, func() (int, error) {
				if n++; n == 1 {
					return 0, before
				}
				cancel()
				cut = lease.CutShort(ctx, nil)
				return 0, cut
			})
			if is(t, err, swanlock.ErrNotAcquired, context.Canceled, before); (err == cut) != (before != outage) {
				t.Errorf("got %v, the try's own is %v", err, cut)
			}
			if before == outage && !strings.HasPrefix(err.Error(), `testlock: acquire "target": `) {
				t.Errorf("the error reads %q", err)
			}
		}
	})
}

// TestDropped: the garbage collector finds a lock that was dropped; it is lost, and
// freed, and a warning says so.
func TestDropped(t *testing.T) {
	var log bytes.Buffer
	usual := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(usual)
	s, r := newServer(t, swanlock.WithOwner("me"))
	told := make(chan error, 1)
	mustTry(t, s, r).AfterDone(func(err error) { told <- err })
	for start := time.Now(); s.holds(); time.Sleep(time.Millisecond) {
		if runtime.GC(); time.Since(start) > 5*time.Second {
			t.Fatal("it is held after collections of garbage for 5 s")
		}
	}
	is(t, <-told, swanlock.ErrLost)
	if got := log.String(); !strings.Contains(got, "dropped without Release") || !strings.Contains(got, "target=target owner=me") {
		t.Errorf("logged: %q", got)
	}
}

// TestLostIsForgotten: nothing is left of a lock whose refresh in the background found
// that it is lost.
func TestLostIsForgotten(t *testing.T) {
	forgotten := make(chan struct{})
	func() {
		s, r := newServer(t, swanlock.WithTTL(600*time.Millisecond), swanlock.WithAutoRefresh())
		r.Lease = 600 * time.Millisecond
		s.refresh = func(context.Context) error { return swanlock.ErrLost }
		runtime.AddCleanup(s, func(struct{}) { close(forgotten) }, struct{}{})
		held := mustTry(t, s, r)
		<-held.Done()
		_ = held.Release(t.Context())
	}()
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		runtime.GC()
		select {
		case <-forgotten:
			return
		default:
		}
		if time.Since(start) > 5*time.Second {
			t.Fatal("something refers to it still")
		}
	}
}
