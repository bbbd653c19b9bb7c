package locktest

import (
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
)

var inputCases = []testCase{
	{
		name: "Info",
		why:  "who holds what since when is what an operator reads first when something is stuck",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			defaults, err := swanlock.NewOptions(target)
			if err != nil {
				e.Fatalf("NewOptions: %v", err)
			}
			before := time.Now()
			held := e.mustTry(a, target)
			e.info(held, before, swanlock.Info{Target: target, Owner: defaults.Owner})
			e.mustRelease(held)

			want := swanlock.Info{Target: target, Owner: `o'wner "ünï" \ %s $1`}
			opts := []swanlock.Option{swanlock.WithOwner(want.Owner)}
			if !e.lacks(ttl) {
				want.TTL = time.Minute
				opts = append(opts, swanlock.WithTTL(want.TTL))
			}
			if !e.lacks(shared) {
				want.Shared = true
				opts = append(opts, swanlock.WithShared())
			}
			before = time.Now()
			held = e.mustAcquire(b, target, opts...)
			e.info(held, before, want)
			e.mustRelease(held)
		},
	},
	{
		name: "NilOptions",
		why:  "an option that depends on a flag is nil when the flag is off",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()
			held := e.mustTry(a, target, nil, swanlock.WithOwner("nil options"), nil)
			if got, want := held.Info().Owner, "nil options"; got != want {
				e.Errorf("owner among nil options: got %q, want %q", got, want)
			}
			e.mustRelease(held)
			e.mustRelease(e.mustAcquire(b, target, nil))
		},
	},
	{
		name: "BadInput",
		why:  "bad input that is sent is cut, mangled or refused by each server in its own way; and \"held elsewhere\" for an answer makes callers try for ever",
		run:  badInput,
	},
	{
		name: "OddTargets",
		why:  "targets are paths and names that users chose; one that is cut or taken for SQL locks something else, or nothing",
		run: func(e *env) {
			a, b := e.locker(), e.locker()
			for _, odd := range []string{
				"", "/", "//", "/./", "/..", "/../x", " ", "\t\r\n", "/a b", "'", `"`, "''; DROP TABLE lock_audit; --",
				"%", "%s %d %!", "$1", "?", ":name", "{}", `\`, `\x00`, "*", "ünïcödé", "e\u0301", "锁", "🦢", "\u202e", "\u200b", "\ufeff",
				"\x1b[31mred\x1b[0m", "\x7f", strings.Repeat("long/", 2000), strings.Repeat("x", 10_000),
			} {
				target := e.target() + odd
				held := e.mustTry(a, target)
				if got := held.Info().Target; got != target {
					e.Errorf("Info: got the target %q, want %q", got, target)
				}
				e.refused("odd target", b, target)
				if _, err := e.try(b, target); err != nil && len(err.Error()) > longError {
					e.Errorf("a target of %d bytes: the error has %d, want %d at most: %.100q...", len(target), len(err.Error()), longError, err)
				}
				e.mustRelease(held)
				e.free("odd target released", b, target)
			}
		},
	},
}

// longError is more than an error has to say, if it does not show a long target
// whole.
const longError = 2000

func (e *env) info(held swanlock.DistributedLock, before time.Time, want swanlock.Info) {
	e.Helper()
	got := held.Info()
	const slack = time.Second // a clock may be set while this runs
	if got.AcquiredAt.Before(before.Add(-slack)) || got.AcquiredAt.After(time.Now().Add(slack)) {
		e.Errorf("Info.AcquiredAt: got %v, want it between %v and %v", got.AcquiredAt, before, time.Now())
	}
	want.AcquiredAt = got.AcquiredAt
	if !want.Shared {
		want.Fence = got.Fence // it may come free
	}
	if got != want {
		e.Errorf("Info: got %+v, want %+v", got, want)
	}
}

func badInput(e *env) {
	a, b := e.locker(), e.locker()
	good := e.target()
	tests := []struct {
		name, target string
		opts         []swanlock.Option
	}{
		{"empty target", "", nil},
		{"NUL byte in the target", good + "\x00", nil},
		{"invalid UTF-8 in the target", good + "\xff", nil},
		{"half a rune in the target", good + "\xe9\x94", nil},
		{"NUL byte in the owner", good, []swanlock.Option{swanlock.WithOwner("a\x00b")}},
		{"invalid UTF-8 in the owner", good, []swanlock.Option{swanlock.WithOwner("\xff")}},
		{"negative TTL", good, []swanlock.Option{swanlock.WithTTL(-time.Second)}},
		{"TTL under a millisecond", good, []swanlock.Option{swanlock.WithTTL(time.Millisecond - 1)}},
		{"auto-refresh without a TTL", good, []swanlock.Option{swanlock.WithAutoRefresh()}},
	}
	for _, tt := range tests {
		for _, acquire := range []string{"TryAcquire", "Acquire"} {
			var held swanlock.DistributedLock
			var err error
			if acquire == "TryAcquire" {
				held, err = e.try(a, tt.target, tt.opts...)
			} else {
				held, err = e.result(e.start(e.ctx, a, tt.target, tt.opts...))
			}
			if err == nil {
				e.Errorf("%s: %s: got a lock, want an error", acquire, tt.name)
				_ = held.Release(e.ctx)
				continue
			}
			e.isNot(acquire+": "+tt.name, err, swanlock.ErrNotAcquired)
			e.free("after "+tt.name, b, good)
		}
	}
	held := e.mustTry(a, good) // the locker took no harm
	e.holds("after bad input", held, b)
	e.mustRelease(held)
}
