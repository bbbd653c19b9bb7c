package verify

import (
	"maps"
	"slices"
	"testing"
	"time"
)

// TestRecorderWaiting: the first waiter in a line, on a session of its own and
// with a lease, is found until it has the lock or its process is gone.
func TestRecorderWaiting(t *testing.T) {
	r := newRecorder()
	long := now() - int64(time.Second)
	ask := func(id string, target int, call int64, ttl time.Duration, single bool) {
		h := &Hold{Proc: id, Target: target, Wait: true, Single: single, TTL: ttl}
		if err := r.add(event{What: evAcquire, Hold: id, Call: call, New: h}); err != nil {
			t.Fatal(err)
		}
	}
	want := func(when string, procs ...string) {
		t.Helper()
		if got := slices.Sorted(maps.Keys(r.waiting())); !slices.Equal(got, procs) {
			t.Errorf("%s: %q wait, want %q", when, got, procs)
		}
	}
	want("at first")
	ask("second", 0, long+5, time.Second, true)
	ask("first", 0, long, time.Second, true)
	ask("just now", 1, now()+int64(time.Hour), time.Second, true)
	ask("without a lease", 2, long, 0, true)
	ask("behind it", 2, long+5, time.Second, true)
	ask("pool", 3, long, time.Second, false)
	want("of many", "first")
	r.gone("first")
	want("when that is gone", "second")
	if err := r.add(event{What: evGranted, Hold: "second", At: now(), Outcome: OK}); err != nil {
		t.Fatal(err)
	}
	want("when that has the lock")
	if err := r.add(event{What: evRollback, Hold: "second", At: now()}); err != nil || r.rolledBack != 1 {
		t.Errorf("%d transactions were rolled back, %v, want 1", r.rolledBack, err)
	}
}
