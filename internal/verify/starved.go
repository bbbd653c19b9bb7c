package verify

import (
	"cmp"
	"context"
	"slices"
	"sort"
	"time"
)

// A machine that does too much at once keeps processes waiting for a processor,
// those of verify and those of the server. So each process of verify looks how
// late it wakes up, and the observer how late the server answers.

// A Stall is a time in which a process wanted to run and did not.
type Stall struct {
	Span
	Proc string // the worker; "": the server, or verify's own process
}

const (
	// pulse is how long a process sleeps at a time to find out how late it wakes.
	pulse = 10 * time.Millisecond
	// late is how much later than it should it wakes up in a stall.
	late = 5 * time.Millisecond
	// lateAnswer is how long the server takes for an observer's look in a stall.
	lateAnswer = 25 * time.Millisecond
)

// pulses calls stalled for each stall of this process, until ctx ends.
func pulses(ctx context.Context, stalled func(Span)) {
	for {
		due := now() + int64(pulse)
		if pause(ctx, pulse) != nil {
			return
		}
		if woke := now(); woke-due > int64(late) {
			stalled(Span{due, woke})
		}
	}
}

// calm is for how much of a span neither proc nor the server had a stall.
func (hist *History) calm(proc string, s Span) time.Duration {
	x := hist.look()
	all, ok := x.stalled[proc]
	if !ok {
		for _, stall := range hist.Stalls {
			if stall.Proc == proc || stall.Proc == "" {
				all = append(all, stall.Span)
			}
		}
		all = merged(all)
		x.stalled[proc] = all
	}
	first := sort.Search(len(all), func(i int) bool { return all[i].Return > s.Call })
	last := sort.Search(len(all), func(i int) bool { return all[i].Call >= s.Return })
	stalls, _ := within(all[first:max(first, last)], s)
	return time.Duration(s.Return - s.Call - stalls)
}

// merged makes one of the spans that overlap, and sorts them.
func merged(spans []Span) (all []Span) {
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.Call, b.Call) })
	for _, s := range spans {
		if n := len(all); n > 0 && s.Call <= all[n-1].Return {
			all[n-1].Return = max(all[n-1].Return, s.Return)
		} else {
			all = append(all, s)
		}
	}
	return all
}
