package shard_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/locktest"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/shard"
)

var bg = context.Background()

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// shards returns a locker over shards with those names, each of its own.
func shards(t *testing.T, names ...string) *shard.Locker {
	t.Helper()
	var all []shard.Shard
	for _, name := range names {
		all = append(all, shard.Shard{Name: name, Locker: memlock.New()})
	}
	l, err := shard.New(all...)
	must(t, err)
	return l
}

func TestConformance(t *testing.T) {
	a, b, c := memlock.New(), memlock.New(), memlock.New()
	locktest.Run(t, func(t *testing.T) swanlock.Locker {
		l, err := shard.New(shard.Shard{"a", a.Session()}, shard.Shard{"b", b.Session()}, shard.Shard{"c", c.Session()})
		must(t, err)
		return l
	}, locktest.InBubble(), locktest.Fair(), locktest.ShortTTL(300*time.Millisecond), locktest.Lose(func(t *testing.T, held swanlock.DistributedLock) {
		for _, l := range []*memlock.Locker{a, b, c} {
			l.Lose(held.Info().Target, nil)
		}
	}))
}

// TestSpread: each shard gets its part, whatever the order of the names, and only
// what must moves when a shard is added.
func TestSpread(t *testing.T) {
	four, same, five := shards(t, "a", "b", "c", "d"), shards(t, "d", "b", "a", "c"), shards(t, "a", "b", "c", "d", "e")
	counts := make(map[string]int)
	moved := 0
	const n = 100_000
	for i := range n {
		target := fmt.Sprintf("/tenant/%d", i)
		name := four.Of(target).Name
		counts[name]++
		if got := same.Of(target).Name; got != name {
			t.Fatalf("%s is on %s or on %s, by the order of the names", target, name, got)
		}
		switch now := five.Of(target).Name; now {
		case name:
		case "e":
			moved++
		default:
			t.Fatalf("%s went from %s to %s, which was there before", target, name, now)
		}
	}
	for name, got := range counts {
		if got < n/4*98/100 || got > n/4*102/100 {
			t.Errorf("%s has %d of %d targets", name, got, n)
		}
	}
	if moved < n/5*98/100 || moved > n/5*102/100 {
		t.Errorf("%d of %d targets moved to the fifth", moved, n)
	}
}

// TestGolden: which shard a target is on never changes between versions.
func TestGolden(t *testing.T) {
	l := shards(t, "eu-1", "eu-2", "us-1")
	for target, want := range map[string]string{
		"/ducklake/checkpoint/swanlake": "us-1", "/tmp/my-resource.db": "eu-1", "a/./b": "us-1", "a//b": "us-1", "./a": "us-1", "/": "eu-1",
	} {
		if got := l.Of(target).Name; got != want {
			t.Errorf("%s is on %s, want %s", target, got, want)
		}
	}
}

// TestMoving: what locks with the shards before, what locks with those after, and
// what is in between exclude each other as they should.
func TestMoving(t *testing.T) {
	lockers := map[string]*memlock.Locker{"a": memlock.New(), "b": memlock.New(), "c": memlock.New()}
	of := func(names ...string) *shard.Locker {
		var all []shard.Shard
		for _, name := range names {
			all = append(all, shard.Shard{Name: name, Locker: lockers[name]})
		}
		l, err := shard.New(all...)
		must(t, err)
		return l
	}
	before, after := of("a", "b"), of("a", "b", "c")
	between := shard.Moving(before, after)
	moves := 0
	for i := range 200 {
		target := fmt.Sprint("t", i)
		held, err := between.TryAcquire(bg, target)
		must(t, err)
		for name, l := range map[string]swanlock.Locker{"before": before, "after": after, "between": between} {
			if _, err := l.TryAcquire(bg, target); !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("%s while it is held in between: %v", name, err)
			}
		}
		must(t, held.Release(bg))
		for name, l := range map[string]swanlock.Locker{"before": before, "after": after} {
			held, err := l.TryAcquire(bg, target)
			must(t, err)
			_, err = between.TryAcquire(bg, target)
			if !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("between while it is held %s: %v", name, err)
			}
			if place := map[string]string{"before": "locker 1", "after": "locker 2"}[name]; before.Of(target).Name != after.Of(target).Name && !strings.Contains(err.Error(), place) {
				t.Errorf("between while it is held %s: %v, want %s: it is locked first where it was", name, err, place)
			}
			must(t, held.Release(bg))
		}
		held, err = between.Acquire(bg, target)
		must(t, err)
		must(t, held.Release(bg))
		held, err = between.TryAcquire(bg, target, swanlock.WithFence())
		if from, to := before.Of(target), after.Of(target); from.Name != to.Name {
			moves++
			if !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("a fence of a target that moves: %v", err)
			}
		} else {
			must(t, err)
			must(t, held.Release(bg))
		}
	}
	if moves < 40 || moves > 95 {
		t.Errorf("%d of 200 targets move", moves)
	}
}

func TestBadInput(t *testing.T) {
	l := memlock.New()
	for want, all := range map[string][]shard.Shard{
		"no shards":       nil,
		"no name":         {{"", l}},
		"two shards":      {{"a", l}, {"a", l}},
		"of \"a\" is nil": {{"a", nil}},
	} {
		if _, err := shard.New(all...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	all := []shard.Shard{{"a", l}}
	s, err := shard.New(all...)
	must(t, err)
	if all[0].Name = "b"; s.Of("t").Name != "a" { // is the caller's business
		t.Errorf("the shard is %q", s.Of("t").Name)
	}
	for _, m := range []swanlock.Locker{shard.Moving(nil, nil), shard.Moving(s, nil), shard.Moving(nil, s)} {
		if _, err := m.Acquire(bg, "t"); err == nil {
			t.Error("Acquire: Moving from nothing, or to it")
		}
		if _, err := m.TryAcquire(bg, "t"); err == nil {
			t.Error("TryAcquire: Moving from nothing, or to it")
		}
	}
	if _, err := s.TryAcquire(bg, ""); err == nil || errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(err.Error(), `shard "a"`) {
		t.Errorf("no target: %v", err)
	}
}

// TestMovingRenamed: a target whose shard has another name now, and the same Locker,
// is locked there once.
func TestMovingRenamed(t *testing.T) {
	server := memlock.New()
	before, err := shard.New(shard.Shard{Name: "eu-1", Locker: server})
	must(t, err)
	after, err := shard.New(shard.Shard{Name: "eu-west-1", Locker: server})
	must(t, err)
	held, err := shard.Moving(before, after).TryAcquire(bg, "t")
	must(t, err)
	if _, err := before.TryAcquire(bg, "t"); !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("by the old name: %v", err)
	}
	must(t, held.Release(bg))
}

// TestMovingReplaced: a target whose shard has another Locker now, and the same name, is
// locked there once: both may be Lockers of one server.
func TestMovingReplaced(t *testing.T) {
	type plain struct { // cannot be compared
		swanlock.Locker
		_ []func()
	}
	server := memlock.New()
	for _, names := range [][2]string{{"eu-1", "eu-1"}, {"eu-1", "eu-2"}} {
		before, err := shard.New(shard.Shard{Name: names[0], Locker: plain{Locker: server.Session()}})
		must(t, err)
		after, err := shard.New(shard.Shard{Name: names[1], Locker: plain{Locker: server.Session()}})
		must(t, err)
		held, err := shard.Moving(before, after).TryAcquire(bg, "t")
		if moves := names[0] != names[1]; (err != nil) != moves {
			t.Errorf("%v: got %v", names, err)
		}
		if err == nil {
			must(t, held.Release(bg))
		}
	}
}
