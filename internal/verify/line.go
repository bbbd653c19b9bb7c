package verify

import (
	"slices"
	"time"
)

// lineGap is how much earlier a waiter must have come than another for their
// order to be judged: from outside it can be seen when Acquire is called, and
// not when a ticket is taken. A time in which the process or the server got no
// processor does not count.
const lineGap = 250 * time.Millisecond

// poolGap is the same for a Pool's, which may first have to open a session for it.
const poolGap = time.Second

// gapAfter is the one for first. Before it can take a ticket, what another waiter has
// left behind on its session when it gave up must end.
func (hist *History) gapAfter(first *Hold) time.Duration {
	came := first.Acquire.Call
	switch {
	case !first.Single:
		return poolGap
	case slices.ContainsFunc(hist.look().gaveUp[first.Label], func(at int64) bool { return at <= came && came < at+int64(oneWait) }):
		return lineGap + oneWait
	}
	return lineGap
}

// lineTry is how long a waiter must have waited for its place to count. A
// Session's Acquire tries once before it takes a ticket, and so may get a lock
// that is free before the first in line has taken it: then it has not waited.
const lineTry = 500 * time.Millisecond

// lineCalm is how long a session may need to recover from a fault.
const lineCalm = time.Second

// checkLine checks that waiters are served in the order in which they came. Two
// of them are compared if they exclude each other, so that the order of their
// returns is that of their grants; if one came much later than the other; and if
// no fault disturbed either while they waited, since that may cost the place in
// line.
func checkLine(hist *History) Result {
	r := Result{Kind: KindLine, Skipped: hist.Unordered}
	if r.Skipped != "" {
		return r
	}
	for i, target := range hist.Targets {
		if target.Places > 0 { // its waiters do not wait for its own key
			continue
		}
		var waiters []*Hold
		for _, h := range hist.holds(i) {
			// A lock that was lost at once might have been granted before one
			// whose acquire returned first.
			if h.Wait && h.Kept() && !hist.disturbed(h) {
				waiters = append(waiters, h)
			}
		}
		hist.starved(&r, i, waiters)
		for n, first := range waiters {
			for _, second := range waiters[n+1:] {
				if second.Acquire.Call >= first.Acquire.Return {
					break // they are in the order of their calls
				}
				if first.Shared && second.Shared || hist.calm(first.Proc, Span{first.Acquire.Call, second.Acquire.Call}) < hist.gapAfter(first) ||
					hist.calm(second.Proc, second.Acquire) < lineTry {
					continue
				}
				r.Checked++
				if second.Acquire.Return < first.Acquire.Return {
					r.find(target, second.Acquire.Return, "%v waited for %s when %v came, which was served first", first, seconds(second.Acquire.Call, first.Acquire.Call), second)
				}
			}
		}
	}
	return r
}

// starved checks those that waited for a target in vain: nobody that came later was
// served while they waited. One that has given up may be told so late.
func (hist *History) starved(r *Result, target int, served []*Hold) {
	for _, first := range hist.Holds {
		if first.Target != target || !first.Wait || first.Outcome != Refused || hist.disturbed(first) {
			continue
		}
		for _, second := range served {
			if second.Acquire.Call <= first.Acquire.Call || second.Acquire.Call >= first.Acquire.Return || first.Shared && second.Shared ||
				hist.calm(first.Proc, Span{first.Acquire.Call, second.Acquire.Call}) < hist.gapAfter(first) ||
				hist.calm(second.Proc, second.Acquire) < lineTry {
				continue
			}
			if r.Checked++; hist.calm(first.Proc, Span{second.Acquire.Return, first.Acquire.Return}) < oneWait {
				continue
			}
			r.find(hist.Targets[target], second.Acquire.Return, "%v waited in vain, and had waited for %s when %v came, which was served",
				first, seconds(second.Acquire.Call, first.Acquire.Call), second)
		}
	}
}

// disturbed reports whether a fault was done to h's process, its session or the
// server while h waited, or just before.
func (hist *History) disturbed(h *Hold) bool {
	return slices.ContainsFunc(hist.Faults, func(f Fault) bool {
		f.Pid = 0 // a pool's ticket may be on another session than the lock
		return f.touches(h) && f.Call <= h.Acquire.Return && h.Acquire.Call <= f.Return+int64(lineCalm)
	})
}
