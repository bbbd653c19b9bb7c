package locktest

import (
	"strings"

	"github.com/swanlake-io/swanlock"
)

var keyCases = []testCase{
	{
		name: "SpellingsAreOneTarget",
		why:  "programs spell a path in their own ways, and swanlock.KeyOf says which spellings are one target: a locker that tells them apart has two holders at once",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()+"/t1"
			for _, other := range spellings(target) {
				held := e.mustTry(a, target)
				e.named(held, target)
				e.refused("the target "+target+" is held", b, other)
				_, err := e.try(a, other)
				e.is("TryAcquire of another spelling by its holder", err, swanlock.ErrNotAcquired)
				if e.pooled == nil {
					e.is("TryAcquire of another spelling by its holder", err, swanlock.ErrAlreadyHeld)
				}
				e.mustRelease(held)

				held = e.mustAcquire(b, other)
				e.named(held, other)
				e.refused("the target "+other+" is held", a, target)
				e.mustRelease(held)
				e.free("after the release of "+other, a, target)
			}
		},
	},
	{
		name:  "SpellingsAreShared",
		why:   "readers and writers of one path exclude each other however each spells it, and readers do not",
		needs: []feature{shared},
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()+"/t1"
			for _, other := range spellings(target) {
				one := e.mustTry(a, target, swanlock.WithShared())
				two := e.mustTry(b, other, swanlock.WithShared())
				e.named(one, target)
				e.named(two, other)
				e.mustRelease(one)
				e.refused("a reader holds "+other+": a writer", c, target)
				e.mustRelease(two)
				writer := e.mustTry(c, other)
				e.refused("a writer holds "+other+": a reader", a, target, swanlock.WithShared())
				e.mustRelease(writer)
			}
			e.free("after all", a, target)
		},
	},
	{
		name: "SpellingsWaitInOneLine",
		why:  "a waiter that spells the target in its own way must wake all the same when the holder releases it, or it sleeps in front of a free lock",
		run: func(e *env) {
			a, b, c, target := e.locker(), e.locker(), e.locker(), e.target()+"/t1"
			for _, other := range spellings(target) {
				held := e.mustTry(a, target)
				wait := e.start(e.ctx, b, other)
				e.pause()
				if !wait.waits() {
					_, err := e.result(wait)
					e.Fatalf("Acquire of %q returned with %v while another holds %q, want it to wait", other, err, target)
				}
				e.mustRelease(held)
				next := e.mustGet(wait)
				e.named(next, other)
				e.refused("the waiter holds "+other, c, target)
				e.mustRelease(next)
			}
		},
	},
	{
		name: "NestedTargets",
		why:  "a locker that finds holders and waiters by a prefix makes those of a folder wait for those of a file in it: for ever, if one program needs both",
		run: func(e *env) {
			a, b, c, folder := e.locker(), e.locker(), e.locker(), e.target()
			targets := []string{folder, folder + "/t", folder + "/t/1", folder + "/t1"}
			var holders []swanlock.DistributedLock
			var waits []*call
			for i, target := range targets {
				holders = append(holders, e.mustAcquire(a, target))
				waits = append(waits, e.start(e.ctx, b, target))
				if i > 0 { // A waiter of the target above must not be in its way, nor one of the target below.
					e.pause()
				}
			}
			for i := range targets { // the folder's first, then the files'
				e.mustRelease(holders[i])
				next := e.mustGet(waits[i])
				for j, other := range waits {
					if j > i && !other.waits() {
						e.Errorf("the release of %q ended the wait for %q: %v", targets[i], targets[j], other.err)
					}
				}
				e.refused("held within others", c, targets[i])
				e.mustRelease(next)
			}
			for i := len(targets) - 1; i >= 0; i-- { // and the other way round
				defer e.mustRelease(e.mustAcquire(c, targets[i]))
			}
		},
	},
	{
		name: "NearTargetsAreApart",
		why:  "a locker that folds what swanlock.KeyOf does not makes strangers wait for each other, and a program that needs both for itself",
		run: func(e *env) {
			a, b, target := e.locker(), e.locker(), e.target()+"/t1"
			held := e.mustTry(a, target)
			for _, near := range []string{
				"./" + target, "../" + target, target + "/x", target + "/..", target + "/../t1", target + " ", target + "0",
				strings.ToLower(target), strings.TrimSuffix(target, "1"), strings.TrimSuffix(target, "/t1"),
				strings.ReplaceAll(target, "/", `\`), strings.ReplaceAll(target, "/", ""),
			} {
				other, err := e.try(b, near)
				if err != nil {
					e.Errorf("TryAcquire of %q while another holds %q: got %v, want nil", near, target, err)
					continue
				}
				e.named(other, near)
				e.mustRelease(other)
			}
			e.holds("after all", held, b)
			e.mustRelease(held)
		},
	},
}

// spellings returns other ways to write target, which has no "." in it and
// leads with a name.
func spellings(target string) []string {
	return []string{
		"/" + target, "//" + target, "/./" + target, target + "/", target + "//", target + "/.",
		strings.ReplaceAll(target, "/", "//"), strings.ReplaceAll(target, "/", "/./"),
	}
}

// named checks that a lock says its target as the caller spelled it.
func (e *env) named(held swanlock.DistributedLock, target string) {
	e.Helper()
	if got := held.Info().Target; got != target {
		e.Errorf("Info: got the target %q, want %q, as the caller spelled it", got, target)
	}
}
