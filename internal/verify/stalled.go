package verify

import (
	"cmp"
	"slices"
)

// A lock that is free must be granted to a waiter, if it has one. A waiter that
// is first in line and is stopped, or cut off, stops those behind it for as
// long as its TTL, if it has one.

// stallBound is how long a waiter may wait for a free lock in vain: a place in
// line has a lease of a second at least, and two of them may have been left one
// after the other.
const stallBound = 2*longestTTL + oneWait + margin

// stalled checks that no lock was free for longer than stallBound, or
// hist.MostFree, while it had a waiter.
func stalled(r *Result, hist *History) {
	bound := int64(cmp.Or(hist.MostFree, stallBound))
	for i, target := range hist.Targets {
		if target.Places > 0 { // its waiters do not wait for its own key
			continue
		}
		var busy, waits []Span // somebody's; waited for
		for _, h := range hist.Holds {
			if h.Target != i {
				continue
			}
			if h.Outcome == OK {
				busy = append(busy, Span{h.Acquire.Return, cmp.Or(h.Release.Return, hist.ended(h))})
			}
			if h.Wait && h.Acquire.Return != 0 && !hist.disturbed(h) {
				waits = append(waits, h.Acquire)
			}
			if h.Wait && !h.leasesPlace() { // its place may be kept for as long as it is disturbed
				busy = append(busy, hist.disturbances(h)...)
			}
		}
		for _, s := range hist.Seen {
			if s.Target == i {
				busy = append(busy, s.Span)
			}
		}
		for _, f := range hist.Faults {
			if f.Label == "" && f.Proc == "" {
				busy = append(busy, Span{f.Call, f.Return + int64(margin)})
			}
		}
		byCall := func(a, b Span) int { return cmp.Compare(a.Call, b.Call) }
		if hist.Backend != "" { // There are no sightings to count.
			r.Checked += len(waits)
		}
		slices.SortFunc(busy, byCall)
		slices.SortFunc(waits, byCall)
		var from int64
		for _, b := range append(busy, Span{hist.End, hist.End}) {
			if b.Call-from >= bound {
				if waited, first := within(waits, Span{from, b.Call}); waited >= bound {
					r.find(target, b.Call, "the lock was nobody's for %s, and it was waited for in vain for %s of that", seconds(b.Call, max(from, first)), seconds(waited, 0))
				}
			}
			from = max(from, b.Return)
		}
	}
}

// within is how much of a span is in some of the others, which are sorted, and when
// the first of them begins.
func within(others []Span, s Span) (total, first int64) {
	at := s.Call
	for _, o := range others {
		from, to := max(o.Call, at), min(o.Return, s.Return)
		if to > from {
			if total == 0 {
				first = from
			}
			total, at = total+to-from, to
		}
	}
	return total, first
}

// disturbances are when something was done to h's process or session while it
// waited.
func (hist *History) disturbances(h *Hold) (spans []Span) {
	for _, f := range hist.Faults {
		f.Pid = 0
		if (f.Proc != "" || f.Label != "") && f.touches(h) && f.Return >= h.Acquire.Call && (h.Acquire.Return == 0 || f.Call <= h.Acquire.Return) {
			spans = append(spans, Span{max(f.Call, h.Acquire.Call), f.Return + int64(margin)})
		}
	}
	return spans
}
