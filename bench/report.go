package main

import (
	"fmt"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
)

// A claim is a line of the table: ours against a floor, or alone.
type claim struct {
	what        string
	ours, floor series
	goal        goal
}

// A goal bounds the ratio to the floor, or our figure if there is no floor. A
// zero goal is for orientation.
type goal struct {
	atMost bool
	bound  float64
}

func atLeast(bound float64) goal { return goal{false, bound} }
func atMost(bound float64) goal  { return goal{true, bound} }

var orientation goal

// against claims something of ours and a contender of the same race. Without
// that contender, whose server is not installed, there is nothing to claim.
func (h *harness) against(what string, got map[string]series, ours, floor string, g goal) {
	if f, ok := got[floor]; ok {
		h.claims = append(h.claims, claim{what, got[ours], f, g})
	}
}

// alone claims something of ours that has no floor.
func (h *harness) alone(what string, s series, g goal) {
	h.claims = append(h.claims, claim{what: what, ours: s, goal: g})
}

// figure claims one value, and prints it as a line of the row's.
func (h *harness) figure(what, row, name, unit string, value float64, g goal) {
	s := series{name, unit, []float64{value}}
	h.printLine(row, s)
	h.alone(what, s, g)
}

func (h *harness) printHeader() {
	fmt.Fprintf(h.out, "goos: %s\ngoarch: %s\npkg: github.com/swanlake-io/swanlock/bench\ncpu: %s\n", runtime.GOOS, runtime.GOARCH, cpu())
	fmt.Fprintf(h.out, "postgres: %s\nredis: %s\netcd: %s\nconsul: %s\n", h.versions["postgres"], h.versions["redis"], h.versions["etcd"], h.versions["consul"])
	fmt.Fprint(h.out, "\nUnit pairs/s better=higher\nUnit handovers/s better=higher\nUnit µs/acquire better=lower\n\n")
}

// cpu is the processor's name, where Linux tells it.
func cpu() string {
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, _ := strings.Cut(line, ":"); strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}

func (h *harness) printTable() {
	fmt.Fprintf(h.out, "\n| what | ours | | floor | | ratio (each round) | goal | met |\n| --- | ---: | --- | ---: | --- | --- | --- | --- |\n")
	for _, c := range h.claims {
		ratio, value, floor, against := "", c.ours.median(), "", ""
		if len(c.floor.values) > 0 {
			value /= c.floor.median()
			floor, against = number(c.floor.median()), c.floor.name
			lowest, highest := c.extremes()
			ratio = fmt.Sprintf("**%.2f** (%.2f to %.2f)", value, lowest, highest)
		} else if len(c.ours.values) > 1 {
			ratio = fmt.Sprintf("(%.2f to %.2f)", slices.Min(c.ours.values), slices.Max(c.ours.values))
		}
		fmt.Fprintf(h.out, "| %s | %s %s | %s | %s | %s | %s | %s | %s |\n",
			c.what, number(c.ours.median()), c.ours.unit, c.ours.name, floor, against, ratio, c.goal, c.goal.met(value))
	}
}

// extremes are the lowest and the highest ratio of a round.
func (c claim) extremes() (lowest, highest float64) {
	lowest = math.Inf(1)
	for i, v := range c.ours.values {
		lowest, highest = min(lowest, v/c.floor.values[i]), max(highest, v/c.floor.values[i])
	}
	return lowest, highest
}

func (g goal) String() string {
	switch {
	case g == orientation:
		return ""
	case g.atMost:
		return fmt.Sprintf("≤ %g", g.bound)
	}
	return fmt.Sprintf("≥ %g", g.bound)
}

func (g goal) met(value float64) string {
	switch {
	case g == orientation:
		return ""
	case g.atMost == (value <= g.bound) || value == g.bound:
		return "yes"
	}
	return "**no**"
}

// number writes a figure with three digits or so.
func number(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "∞" // somebody got nothing
	case v >= 10_000:
		return fmt.Sprintf("%.1f k", v/1000)
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.3g", v)
}
