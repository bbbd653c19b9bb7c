package memlock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
)

func TestLose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l, cause := New(), errors.New("backend terminated")
		if l.Lose(target, cause) {
			t.Errorf("Lose of what nobody holds: got true, want false")
		}
		one := mustTry(t, l, swanlock.WithShared())
		two := mustTry(t, l.Session(), swanlock.WithShared(), swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
		q := &queue{t: t, l: l}
		q.join(t.Context(), "w")
		if !l.Session().Lose(target, cause) {
			t.Errorf("Lose: got false, want true")
		}
		for _, held := range []swanlock.DistributedLock{one, two} {
			select {
			case <-held.Done():
			default:
				t.Errorf("Done is open after Lose")
			}
			for what, err := range map[string]error{"Err": held.Err(), "Refresh": held.Refresh(t.Context()), "Release": held.Release(t.Context())} {
				if !errors.Is(err, swanlock.ErrLost) || !errors.Is(err, cause) || errors.Is(err, swanlock.ErrExpired) {
					t.Errorf("%s after Lose: got %v, want ErrLost and the cause", what, err)
				}
			}
		}
		q.want("w")
		time.Sleep(time.Second)
		synctest.Wait()
		empty(t, l)

		held := mustTry(t, l)
		l.Lose(target, swanlock.ErrExpired)
		if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("Err after Lose with ErrExpired: got %v", err)
		}
		held = mustTry(t, l, swanlock.WithTTL(time.Minute))
		l.Lose(target, nil)
		if err := held.Err(); !errors.Is(err, swanlock.ErrLost) || errors.Is(err, swanlock.ErrExpired) {
			t.Errorf("Err after Lose without a cause: got %v, want ErrLost", err)
		} else if got, want := err.Error(), `memlock: "/some/target": lock lost: taken away by Lose`; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		empty(t, l)
	})
}

// A waitHook is a context that calls a function when it is waited for.
type waitHook struct {
	context.Context
	waits func()
}

func (c waitHook) Done() <-chan struct{} { c.waits(); return c.Context.Done() }

// A lock that is granted and lost as the context ends is not acquired.
func TestLoseAsContextEnds(t *testing.T) {
	l := New()
	for name, ttl := range map[string]time.Duration{"taken away": 0, "expired": time.Millisecond} {
		ctx, cancel := context.WithCancel(t.Context())
		held, err := l.Acquire(waitHook{ctx, func() {
			if ttl == 0 {
				l.Lose(target, nil)
			}
			time.Sleep(ttl)
			cancel()
		}}, target, swanlock.WithTTL(ttl))
		if !errors.Is(err, context.Canceled) || !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("%s: got %v, %v, want ErrNotAcquired and the cause", name, held, err)
		}
		empty(t, l)
	}
}

// An old lock's calls must not reach the line that took its line's place.
func TestOldLockLeavesNewLineAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		old := mustTry(t, l, swanlock.WithTTL(time.Minute))
		time.Sleep(time.Hour)
		held := mustTry(t, l)
		_, _, _ = old.Err(), old.Refresh(t.Context()), old.Release(t.Context())
		if _, err := l.TryAcquire(t.Context(), target); !errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a rival's try: got %v, want ErrNotAcquired", err)
		}
		release(t, held)
		empty(t, l)
	})
}

func TestSpacesAreApart(t *testing.T) {
	release(t, mustTry(t, New()))
	one, two := mustTry(t, New()), mustTry(t, New())
	release(t, one)
	release(t, two)
}

func TestErrorNamesTargetAndHolder(t *testing.T) {
	l := New()
	held := mustTry(t, l, swanlock.WithOwner("checkpoint"))
	_, err := l.TryAcquire(t.Context(), target)
	if got, want := fmt.Sprint(err), `memlock: "/some/target": not acquired: held by "checkpoint"`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	release(t, held)
}

// Each error names the target as its caller spelled it, not as others did.
func TestSpellings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := New()
		one := l.Session()
		spelled := target + "/"
		held := mustTry(t, one, swanlock.WithTTL(time.Minute))
		_, err := one.TryAcquire(t.Context(), spelled)
		if !errors.Is(err, swanlock.ErrAlreadyHeld) || !strings.HasPrefix(fmt.Sprint(err), `memlock: "/some/target/": `) {
			t.Errorf("another spelling by the holder: got %v, want ErrAlreadyHeld of that spelling", err)
		}
		next, err := l.Acquire(t.Context(), spelled) // when the TTL has run out
		if err != nil {
			t.Fatal(err)
		}
		if err := held.Err(); !errors.Is(err, swanlock.ErrExpired) || !strings.HasPrefix(fmt.Sprint(err), `memlock: "/some/target": `) {
			t.Errorf("Err of the one that expired: got %v, want ErrExpired of its spelling", err)
		}
		if !l.Lose("some//target", nil) {
			t.Errorf("Lose of another spelling: got false, want true")
		}
		if err := next.Err(); !errors.Is(err, swanlock.ErrLost) || !strings.HasPrefix(fmt.Sprint(err), `memlock: "/some/target/": `) {
			t.Errorf("Err after Lose of another spelling: got %v, want ErrLost of the lock's spelling", err)
		}
		empty(t, l)
	})
}
