package verify

import (
	"fmt"
	"slices"
	"time"
)

// What can be found, and what is checked for it.
const (
	KindMutex         = "mutex"          // one holder at a time
	KindReadersWriter = "readers-writer" // one writer, or readers
	KindFence         = "fence"          // fences rise with every exclusive grant
	KindRegister      = "register"       // what the fence guards is written by its holder alone
	KindPlaces        = "places"         // no more hold a semaphore than it has places, and never two lead
	KindNobody        = "held by nobody" // no lock outlives its holder by more than it may
	KindLine          = "line"           // the waiter that came first is served first
	KindAudit         = "audit"          // intervals do not overlap, and are those of the history
	KindSpared        = "spared"         // what is slow costs nobody else's lock
	KindStuck         = "stuck"          // every call returns
	KindCrash         = "crash"          // no worker ends by itself
)

// A Finding is something that must not be.
type Finding struct {
	Kind   string `json:"kind"`
	Target string `json:"target,omitempty"`
	At     int64  `json:"at"` // about when, by the history's clock
	Text   string `json:"text"`
}

// A Result is the outcome of one check.
type Result struct {
	Kind     string    `json:"kind"`
	Checked  int       `json:"checked"`           // operations, or what else was looked at
	Pieces   int       `json:"pieces"`            // histories that were checked by themselves
	Unknown  int       `json:"unknown"`           // of them, those that took too long to judge
	Skipped  string    `json:"skipped,omitempty"` // why it was not checked
	Findings []Finding `json:"findings"`
}

func (r *Result) find(target Target, at int64, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{Kind: r.Kind, Target: target.Name, At: at, Text: fmt.Sprintf(format, args...)})
}

// A Report is what a run has shown.
type Report struct {
	Seed    uint64
	Server  string
	Workers int
	Faults  []string // that were asked for
	Took    time.Duration
	Counts  Counts
	Done    map[string]int // faults, by kind
	Touched int            // holds whose session was, or may have been, ended by force
	Results []Result
	History *History
}

// Judge checks a history.
func Judge(hist *History) *Report {
	r := &Report{Seed: hist.Seed, History: hist, Done: make(map[string]int)}
	for _, f := range hist.Faults {
		if f.Detail != detailOutage && !(f.Kind == FaultSilence && f.Detail == detailClose) {
			r.Done[f.Kind]++
		}
	}
	if hist.RolledBack > 0 {
		r.Done[FaultRollback] = hist.RolledBack
	}
	for _, h := range hist.Holds {
		r.Counts.count(h)
		if h.Outcome == OK && !h.Kept() && hist.touched(h) != never {
			r.Touched++
		}
	}
	locks := checkLocks(hist)
	r.Results = append(r.Results, locks...)
	r.add(checkRegister(hist))
	r.add(checkPlaces(hist))
	r.add(checkNobody(hist))
	r.add(checkLine(hist))
	if hist.Backend == "" {
		r.add(checkAudit(hist))
		r.add(checkSpared(hist))
	}
	return r
}

func (c *Counts) count(h *Hold) {
	c.Attempts++
	if h.Outcome == OK {
		c.Granted++
		if h.Shared {
			c.Shared++
		}
	}
	if h.Ended != 0 || h.Release.Call != 0 && h.Released == Lost {
		c.Lost++
	}
	for _, w := range h.Writes {
		c.Writes++
		if w.Outcome == Refused {
			c.Fenced++
		}
	}
}

func (r *Report) add(result Result) { r.Results = append(r.Results, result) }

// Findings are all of them, in the order of time.
func (r *Report) Findings() (all []Finding) {
	for _, result := range r.Results {
		all = append(all, result.Findings...)
	}
	slices.SortStableFunc(all, func(a, b Finding) int { return int(min(max(a.At-b.At, -1), 1)) })
	return all
}

// Unknown is how many histories could not be judged in time.
func (r *Report) Unknown() (n int) {
	for _, result := range r.Results {
		n += result.Unknown
	}
	return n
}
