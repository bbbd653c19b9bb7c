package locktest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A recorder stands in for *testing.T and keeps what a case says.
type recorder struct {
	mu     sync.Mutex
	errors []string
	logs   []string
}

func (r *recorder) Helper() {}

func (r *recorder) Logf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.logs = append(r.logs, fmt.Sprintf(format, args...))
}

func (r *recorder) Errorf(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.Errorf(format, args...)
	runtime.Goexit()
}

func (r *recorder) Failed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.errors) > 0
}

// record runs one case in a bubble and returns what it found.
func record(t *testing.T, c testCase, b backend) *recorder {
	t.Helper()
	cfg, err := newConfig(b.opts)
	if err != nil {
		t.Fatal(err)
	}
	if reason := cfg.skips(c); reason != "" {
		t.Fatalf("case %s does not run against it: %s", c.name, reason)
	}
	r := &recorder{}
	synctest.Test(t, func(t *testing.T) {
		newLocker := b.new()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() {
				if p := recover(); p != nil {
					r.Errorf("panic: %v\n%s", p, debug.Stack())
				}
			}()
			runCase(r, t, cfg, c, newLocker)
		})
		wg.Wait()
		time.Sleep(time.Hour) // in the bubble, for what broken lockers left running
	})
	return r
}

// TestRunPasses runs the suite as users do, in real time.
func TestRunPasses(t *testing.T) {
	space := memlock.New()
	Run(t, func(*testing.T) swanlock.Locker { return space.Session() },
		ShortTTL(300*time.Millisecond), Fair(),
		Lose(func(t *testing.T, held swanlock.DistributedLock) { space.Lose(held.Info().Target, nil) }))
}

// TestBrokenLockers runs each case against lockers that break what it guards.
func TestBrokenLockers(t *testing.T) {
	caught := make(map[string]bool)
	for _, b := range brokenLockers {
		t.Run(b.name, func(t *testing.T) {
			for _, name := range b.caughtBy {
				i := slices.IndexFunc(cases, func(c testCase) bool { return c.name == name })
				if i < 0 {
					t.Fatalf("no case %q", name)
				}
				r := record(t, cases[i], b.backend)
				if !r.Failed() {
					t.Errorf("%s passed", name)
					continue
				}
				caught[name] = true
				t.Logf("%s: %s", name, r.errors[0])
				if strings.HasPrefix(r.errors[0], "panic: ") {
					if !b.panics {
						t.Errorf("%s panicked, it was to fail", name)
					}
					continue
				}
				if want := "why it matters: " + cases[i].why; !slices.Contains(r.logs, want) {
					t.Errorf("%s: log %q, want it to hold %q", name, r.logs, want)
				}
			}
		})
	}
	for _, c := range cases {
		if !caught[c.name] {
			t.Errorf("no broken locker fails %s: how do we know that it can fail?", c.name)
		}
	}
}

// TestSoundLockers is the other half: what the broken ones are made of passes.
func TestSoundLockers(t *testing.T) {
	for _, b := range []backend{sessions(nil), pools(nil), plain, fenceless, toldOfLostPlaces, waitsAnew, keptAlive, late} {
		cfg, err := newConfig(b.opts)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cases {
			if reason := cfg.skips(c); reason != "" {
				given := slices.ContainsFunc(c.needs, func(f feature) bool {
					return cfg.without[f] != "" && strings.HasSuffix(reason, cfg.without[f])
				})
				if slices.ContainsFunc(c.needs, func(f feature) bool { return cfg.without[f] != "" }) && !given {
					t.Errorf("%s is skipped with %q, want a reason that was given", c.name, reason)
				}
				continue
			}
			if r := record(t, c, b); r.Failed() {
				t.Errorf("%s: %s", c.name, strings.Join(r.errors, "\n"))
			}
		}
	}
}

// TestRunFails runs this test binary on a locker that grants twice: Run itself
// must fail it, case by case, and say why.
func TestRunFails(t *testing.T) {
	const env = "LOCKTEST_RUN_BROKEN"
	if os.Getenv(env) != "" {
		Run(t, func(*testing.T) swanlock.Locker { return memlock.New() }, ShortTTL(50*time.Millisecond), InBubble())
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRunFails$", "-test.v")
	cmd.Env = append(os.Environ(), env+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("Run passed a locker that excludes nobody:\n%s", out)
	}
	for _, want := range []string{
		"--- FAIL: TestRunFails/Exclusion", "--- FAIL: TestRunFails/Storm", "--- FAIL: TestRunFails/Do ",
		"--- PASS: TestRunFails/AfterRelease", "--- SKIP: TestRunFails/Fair", "why it matters: two holders at once",
		"another locker acquired the target too", "increments under the lock left the counter at",
		"a writer wrote while a reader held the lock",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("output lacks %q:\n%s", want, out)
		}
	}
}

func TestOptions(t *testing.T) {
	for _, tt := range []struct {
		name string
		opts []Option
		ok   bool
	}{
		{"none", nil, true},
		{"nil", []Option{nil}, true},
		{"reasons", []Option{WithoutTTL("x"), WithoutFence("x"), WithoutShared("x"), WithoutAutoRefresh("x"), Pooled("x"),
			FreesLate(2, "x"), KeptAlive("x")}, true},
		{"no reason: TTL", []Option{WithoutTTL("")}, false},
		{"no reason: fence", []Option{WithoutFence("")}, false},
		{"no reason: shared", []Option{WithoutShared("")}, false},
		{"no reason: auto-refresh", []Option{WithoutAutoRefresh("")}, false},
		{"no reason: pooled", []Option{Pooled("")}, false},
		{"no reason: late", []Option{FreesLate(2, "")}, false},
		{"no reason: kept alive", []Option{KeptAlive("")}, false},
		{"free too soon", []Option{FreesLate(0.9, "x")}, false},
		{"TTL too short", []Option{ShortTTL(time.Millisecond)}, false},
	} {
		if _, err := newConfig(tt.opts); (err == nil) != tt.ok {
			t.Errorf("%s: got the error %v, want none: %t", tt.name, err, tt.ok)
		}
	}
	names := make(map[string]bool)
	for _, c := range cases {
		if names[c.name] || c.name == "" || c.why == "" {
			t.Errorf("case %q: its name must be unique, and it must say why it matters: %q", c.name, c.why)
		}
		names[c.name] = true
	}
}

// TestStalled checks that an attempt that a stall or a slow backend spoiled runs
// again, with a longer TTL, and that one that failed without either does not.
func TestStalled(t *testing.T) {
	cfg, err := newConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name             string
		stall            bool
		slow             time.Duration // a call of the backend
		failures         int
		attempts, errors int
		last             time.Duration // TTL
	}{
		{"passes", false, 0, 0, 1, 0, time.Second},
		{"fails", false, 0, 1, 1, 1, time.Second},
		{"stalls once", true, 0, 1, 2, 0, 2 * time.Second},
		{"stalls always", true, 0, 99, 8, 1, 10 * time.Second},
		{"is slow", false, 150 * time.Millisecond, 99, 2, 1, 2 * time.Second}, // which is not slow for twice the TTL
		{"is quick", false, 50 * time.Millisecond, 99, 1, 1, time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r, attempts, last, own := &recorder{}, 0, time.Duration(0), *cfg
			var wg sync.WaitGroup
			wg.Go(func() {
				e := &env{tb: r, config: &own, watch: stalls(tt.stall)}
				e.steady(func() error {
					last = e.ttl
					e.timed(time.Now().Add(-tt.slow))
					if attempts++; attempts <= tt.failures {
						return errWork
					}
					return nil
				})
			})
			wg.Wait()
			if last != tt.last || own.ttl != cfg.ttl {
				t.Errorf("the last TTL was %v, and is %v then; want %v and %v", last, own.ttl, tt.last, cfg.ttl)
			}
			if attempts != tt.attempts || len(r.errors) != tt.errors {
				t.Errorf("got %d attempts and the errors %q, want %d and %d", attempts, r.errors, tt.attempts, tt.errors)
			}
		})
	}
}

// stalls returns an env's watch that always sees a stall, or never.
func stalls(stall bool) (watch func() func() time.Duration) {
	return func() func() time.Duration {
		return func() time.Duration {
			if stall {
				return 2 * time.Second
			}
			return 0
		}
	}
}

// TestGrantedTooLate checks that the suite asks once more for a lock whose grant a
// stall has delayed for longer than its TTL.
func TestGrantedTooLate(t *testing.T) {
	cfg, err := newConfig(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, stall := range []bool{false, true} {
		r, locker := &recorder{}, &lateOnce{Locker: memlock.New()}
		var held swanlock.DistributedLock
		var wg sync.WaitGroup
		wg.Go(func() {
			e := &env{tb: r, config: cfg, ctx: t.Context(), watch: stalls(stall)}
			held = e.mustTry(locker, "late")
		})
		wg.Wait()
		if got := held != nil; got != stall || r.Failed() == stall {
			t.Errorf("stalled %t: got a lock: %t, and the errors %q", stall, got, r.errors)
		}
		if held != nil {
			_ = held.Release(t.Context())
		}
	}
}

// lateOnce grants nothing at first.
type lateOnce struct {
	swanlock.Locker
	tried bool
}

func (l *lateOnce) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	if !l.tried {
		l.tried = true
		return nil, swanlock.ErrNotAcquired
	}
	return l.Locker.TryAcquire(ctx, target, opts...)
}

// TestWatchScheduler runs in a bubble, where nobody is woken late, and with a
// clock that jumps.
func TestWatchScheduler(t *testing.T) {
	for _, want := range []time.Duration{0, 700 * time.Millisecond} {
		synctest.Test(t, func(*testing.T) {
			begin, jumped := time.Now(), false
			stalled := watchClock(func() time.Time {
				now := time.Now()
				if jumped = jumped || now.Sub(begin) > 10*time.Second; jumped {
					now = now.Add(want)
				}
				return now
			})
			time.Sleep(time.Minute)
			if got := stalled(); got != want {
				t.Errorf("got a stall of %v, want %v", got, want)
			}
		})
	}
}
