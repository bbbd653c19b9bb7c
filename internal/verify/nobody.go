package verify

import (
	"cmp"
	"slices"
	"sort"
)

// A lock that the server shows must belong to a session whose process lives,
// and is about to acquire it, holds it, or has not released it yet. When that
// ends, the lock must go: at once if the server was told, within the margin if
// the server has to find out by itself, and within the TTL if the holder is
// stopped.

// A claim says that a session may have a lock from one time to another.
type claim struct {
	from, until int64
	pid, but    int // the backend that it is of, and one that it is not of; 0: any, none
}

type claimant struct {
	label  string
	target int
}

func checkNobody(hist *History) Result {
	r := Result{Kind: KindNobody}
	claims := make(map[claimant][]claim)
	for _, h := range hist.Holds {
		at := claimant{h.Label, h.Target}
		claims[at] = append(claims[at], hist.claim(h))
		if h.Outcome == OK && !h.Single {
			// A pool may wait on another session than the one that it holds on.
			c := claim{from: h.Acquire.Call, until: h.Acquire.Return + int64(margin) + int64(h.TTL), but: h.Pid}
			c.until = hist.healed(&Hold{Label: h.Label, TTL: h.TTL, Audited: h.Audited}, c.until)
			claims[at] = append(claims[at], c)
		}
	}
	for at, all := range claims {
		slices.SortFunc(all, func(a, b claim) int { return cmp.Compare(a.from, b.from) })
		claims[at] = all
	}
	told := make(map[claimant]bool)
	for _, s := range hist.Seen {
		r.Checked++
		at := claimant{s.Label, s.Target}
		if told[at] || slices.ContainsFunc(claims[at], func(c claim) bool {
			return c.from <= s.Return && s.Call <= c.until && (c.pid == 0 || c.pid == s.Pid) && (c.but == 0 || c.but != s.Pid)
		}) {
			continue
		}
		told[at] = true
		last := "no attempt of that session"
		for _, h := range hist.Holds {
			if h.Label == s.Label && h.Target == s.Target && h.Acquire.Call <= s.Call {
				c := hist.claim(h)
				last = h.String() + ", which may have had it for " + seconds(c.until, c.from)
			}
		}
		r.find(hist.Targets[s.Target], s.Call, "the server shows the lock with process %d of session %s, but it is nobody's; the last to want it there was %s", s.Pid, s.Label, last)
	}
	stopped(&r, hist)
	stalled(&r, hist)
	already(&r, hist)
	return r
}

// claim returns the claim of h.
func (hist *History) claim(h *Hold) claim {
	c := claim{from: h.Acquire.Call, until: never}
	late := int64(margin) + int64(h.TTL)
	switch {
	case h.Outcome == OK && h.Release.Return != 0 && h.Released == OK:
		c.until, c.pid = h.Release.Return, h.Pid // the server itself said so
		return c
	case h.Outcome == OK && h.Release.Return != 0:
		c.until = h.Release.Return + late
	case h.Outcome == Refused && h.Single && hist.answered(h) && !hist.slowed(h):
		c.until = h.Acquire.Return
		if h.Wait { // One whose context has ended leaves a wait in the server behind, which may be granted before it is undone.
			c.until += int64(oneWait)
		}
		return c
	case h.Outcome != OK && h.Outcome != Pending:
		c.until = h.Acquire.Return + late
	}
	if killed, ok := hist.look().killed[h.Proc]; ok {
		c.until = min(c.until, killed+late)
	}
	if c.until < never {
		c.until = hist.healed(h, c.until)
	}
	return c
}

// slowed reports whether the server may have answered h's acquire after its
// caller had stopped waiting. Then the acquire is undone in the background.
func (hist *History) slowed(h *Hold) bool {
	for _, faults := range [][]Fault{hist.look().cutsOf[h.Label], hist.look().stalls} {
		if slices.ContainsFunc(faults, func(f Fault) bool {
			return f.touches(h) && f.Call <= h.Acquire.Return && h.Acquire.Call <= f.Return
		}) {
			return true
		}
	}
	return false
}

// answered reports whether the session of h lived on after h was refused, and
// was granted another lock. By then it no longer held h.
func (hist *History) answered(h *Hold) bool {
	return hist.look().grants[h.Label] > h.Acquire.Return
}

// stopped checks that the server ended the leases of processes that were
// stopped for longer than those.
func stopped(r *Result, hist *History) {
	for _, f := range hist.Faults {
		if f.Kind != FaultStop {
			continue
		}
		for _, h := range hist.Holds {
			// A lock that was taken in a transaction may have lost its lease in a rollback.
			if h.Proc != f.Proc || h.TTL == 0 || h.InTransaction || h.Acquire.Call > f.Call ||
				h.Release.Return != 0 && h.Release.Return < f.Return {
				continue
			}
			until := f.Call + int64(h.TTL) + int64(margin)
			if pending := h.Acquire.Return == 0 || h.Acquire.Return > f.Call; pending {
				if !h.Single || !h.leasesPlace() {
					continue
				}
				until += int64(oneWait) // the server may have granted it in one that it had begun
			} else if h.Outcome != OK {
				continue
			}
			until = hist.healed(h, until)
			first := sort.Search(len(hist.Seen), func(i int) bool { return hist.Seen[i].Call > until })
			for _, s := range hist.Seen[first:] {
				if s.Return >= f.Return {
					break
				}
				if s.Label == h.Label && s.Target == h.Target && (h.Pid == 0 || s.Pid == h.Pid) {
					r.find(hist.Targets[h.Target], s.Call, "process %s is stopped since %s, the TTL was %v, and the server still shows its lock: %v",
						h.Proc, seconds(s.Call, f.Call), h.TTL, h)
					break
				}
			}
		}
	}
}

// already checks that no session that holds nothing was told that it holds the
// lock itself, and no pool, of which each caller is another holder.
func already(r *Result, hist *History) {
	for _, h := range hist.Holds {
		if h.Outcome == Already {
			r.find(hist.Targets[h.Target], h.Acquire.Return, "a session or a pool that held nothing was told that it holds the lock: %v: %s", h, h.Err)
		}
	}
}
