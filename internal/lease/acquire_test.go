package lease_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// TestTryFreesInDoubt: whatever happens to the answer, a lock that is not
// returned is not held on the server.
func TestTryFreesInDoubt(t *testing.T) {
	lostAnswer := errors.New("connection reset")
	cause := errors.New("shut down")
	for name, c := range map[string]struct {
		answer func(s *server, cancel func()) error
		want   []error
	}{
		"the answer did not come": {func(*server, func()) error { return lostAnswer }, []error{lostAnswer}},
		"ctx ended, with a grant": {func(_ *server, cancel func()) error { cancel(); return nil }, []error{swanlock.ErrNotAcquired, cause}},
		"ctx ended, without an answer": {func(_ *server, cancel func()) error { cancel(); return lostAnswer },
			[]error{swanlock.ErrNotAcquired, cause, lostAnswer}},
		"the answer took longer than the lease":                            {func(*server, func()) error { time.Sleep(ttl); return nil }, []error{swanlock.ErrNotAcquired}},
		"ctx ended with a cause like an answer, which the client returned": {nil, []error{swanlock.ErrNotAcquired}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, r := newServer(t)
				ctx, cancel := context.WithCancelCause(t.Context())
				held, err := lease.Try(ctx, r, func(ctx context.Context) (uint64, error) {
					s.begin()
					s.ends = s.ends.Add(time.Hour)
					if c.answer == nil {
						cancel(swanlock.ErrNotAcquired)
						<-ctx.Done()
						return 0, context.Cause(ctx)
					}
					return 0, c.answer(s, func() { cancel(cause) })
				})
				if is(t, err, c.want...); !strings.HasPrefix(err.Error(), `testlock: acquire "target": `) {
					t.Errorf("the error reads %q", err)
				}
				if held != nil || s.holds() {
					t.Errorf("got %v, and the server holds it: %t", held, s.holds())
				}
			})
		})
	}
}

// TestTryHangs: a server that hangs ends a Try after the lease, without an error
// of a context that its caller does not know.
func TestTryHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, r := newServer(t)
		hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		s.release = func(ctx context.Context) (bool, error) { return false, hang(ctx) }
		_, err := lease.Try(t.Context(), r, func(ctx context.Context) (uint64, error) { return 0, hang(ctx) })
		is(t, err, swanlock.ErrNotAcquired)
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, but the caller's context has no deadline", err)
		}
	})
}

// TestTryRefused: nothing is sent if ctx has ended, nor after a refusal.
func TestTryRefused(t *testing.T) {
	s, r := newServer(t)
	s.release = func(context.Context) (bool, error) { t.Error("freed"); return false, nil }
	_, err := lease.Try(t.Context(), r, func(context.Context) (uint64, error) { return 0, swanlock.ErrNotAcquired })
	is(t, err, swanlock.ErrNotAcquired)
	wrong := errors.New("no such table")
	_, err = lease.Try(t.Context(), r, func(context.Context) (uint64, error) { return 0, lease.Refused(wrong) })
	is(t, err, wrong)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = lease.Try(ctx, r, func(context.Context) (uint64, error) { t.Error("sent"); return 0, nil })
	is(t, err, swanlock.ErrNotAcquired, context.Canceled)
}

// TestLeave: a caller does not wait for a client that ignores its context, and
// what comes late is not lost.
func TestLeave(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		got, err := lease.Leave(ctx, func() (int, error) { return 1, errors.ErrUnsupported }, nil)
		is(t, err, errors.ErrUnsupported)
		late := 0
		start := time.Now()
		slow := func() (int, error) { time.Sleep(time.Minute); return 2, nil }
		none, err := lease.Leave(ctx, slow, func(v int, _ error) { late = v })
		is(t, err, context.DeadlineExceeded)
		if took := time.Since(start); got != 1 || none != 0 || took != time.Second {
			t.Errorf("got %d, %d after %v", got, none, took)
		}
		if _, err := lease.Leave(ctx, slow, nil); err == nil { // which nobody wants to hear of
			t.Error("it did not leave")
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if late != 2 {
			t.Errorf("late got %d, want 2", late)
		}
	})
}

// TestPoll: it waits through refusals and outages, returns other errors at once,
// and tells of an outage that has not ended.
func TestPoll(t *testing.T) {
	outage, wrong := errors.New("connection refused"), errors.New("no such table")
	goesOn := func(err error) bool { return errors.Is(err, outage) }
	for name, c := range map[string]struct {
		answers []error // the last one from then on
		want    []error
		not     error
	}{
		"in the end": {[]error{swanlock.ErrNotAcquired, outage, swanlock.ErrNotAcquired, nil}, nil, nil},
		"refused":    {[]error{outage, swanlock.ErrNotAcquired}, []error{swanlock.ErrNotAcquired, context.DeadlineExceeded}, outage},
		"outage":     {[]error{swanlock.ErrNotAcquired, outage}, []error{swanlock.ErrNotAcquired, context.DeadlineExceeded, outage}, nil},
		"wrong":      {[]error{outage, wrong}, []error{wrong}, swanlock.ErrNotAcquired},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				n := 0
				got, err := lease.Poll(ctx, "testlock", "target", goesOn, func() (string, error) {
					n++
					return "lock", c.answers[min(n, len(c.answers))-1]
				})
				is(t, err, c.want...)
				if c.not != nil && errors.Is(err, c.not) {
					t.Errorf("got %v, which matches %v", err, c.not)
				}
				if acquired := got == "lock"; acquired != (c.want == nil) || acquired != (err == nil) {
					t.Errorf("got %q, %v", got, err)
				}
				if c.want != nil && ctx.Err() != nil && (n < 600 || n > 1300) {
					t.Errorf("%d tries in a minute, want one each 50 to 100 ms", n)
				}
			})
		})
	}
}
