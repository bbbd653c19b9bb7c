package main

import (
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// What is sampled. Everything is counted at rest: no load, no lock.
const (
	heap       = iota // bytes that are alive after a garbage collection
	goroutines        // of the whole process
	inUse             // connections that are out of the *sql.DBs
	backends          // of ours, by the server
	locks             // advisory locks of ours, objsubid 1
	tickets           // places in lines, and shares of a line's number 0; objsubid 2
	statements        // prepared, of the Session that has most
	nFigures
)

// A sample is what one rest showed.
type sample struct {
	at     time.Duration
	values [nFigures]int64
}

var figures = [nFigures]struct {
	name  string
	unit  int64
	slack func(before int64) int64 // nil: it must be 0 always
}{
	heap:       {"heap after GC, KB", 1 << 10, func(before int64) int64 { return before/10 + 1<<20 }},
	goroutines: {"goroutines", 1, two},
	inUse:      {"connections in use", 1, two},
	backends:   {"connections, says the server", 1, two},
	locks:      {"locks at rest", 1, nil},
	tickets:    {"tickets at rest", 1, nil},
	statements: {"statements of a Session", 1, two},
}

func two(int64) int64 { return 2 }

// fewest is how many samples can be judged: one in each quarter.
const fewest = 4

// judge returns what is not flat. The first quarter of the samples is the
// warm-up. For each figure, the median of the last quarter must not exceed that
// of the second by more than the figure's slack. A figure without slack must be
// 0 in every sample; that is judged even if there are too few samples for the
// rest, which the error says then.
func judge(samples []sample) (findings []string, err error) {
	n := len(samples)
	if n < fewest {
		err = fmt.Errorf("%d samples are too few to judge, %d are the least", n, fewest)
	}
	for i, f := range figures {
		if f.slack == nil {
			findings = append(findings, nonzero(f.name, i, samples)...)
			continue
		}
		if err != nil {
			continue
		}
		before, after := median(i, samples[n/4:n/2]), median(i, samples[n*3/4:])
		if limit := before + f.slack(before); after > limit {
			findings = append(findings, fmt.Sprintf("%s: %d in the second quarter, %d in the last, more than %d",
				f.name, before/f.unit, after/f.unit, limit/f.unit))
		}
	}
	return findings, err
}

func nonzero(name string, i int, samples []sample) []string {
	var first *sample
	times := 0
	for k, s := range samples {
		if s.values[i] != 0 {
			if times++; first == nil {
				first = &samples[k]
			}
		}
	}
	if first == nil {
		return nil
	}
	return []string{fmt.Sprintf("%s: %d after %v, not 0; so in %d of %d samples", name, first.values[i], first.at.Round(time.Second), times, len(samples))}
}

// median is that of a figure, the upper one of two.
func median(i int, samples []sample) int64 {
	values := make([]int64, len(samples))
	for k, s := range samples {
		values[k] = s.values[i]
	}
	slices.Sort(values)
	return values[len(values)/2]
}

// tabulate writes the figures, and when they were sampled.
func tabulate(w io.Writer, samples []sample) {
	if len(samples) == 0 {
		return
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "figure\tfirst\tmedian\tlast\tmax\t")
	for i, f := range figures {
		most := slices.MaxFunc(samples, func(a, b sample) int { return int(a.values[i] - b.values[i]) }).values[i]
		fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t\n", f.name, samples[0].values[i]/f.unit, median(i, samples)/f.unit,
			samples[len(samples)-1].values[i]/f.unit, most/f.unit)
	}
	t.Flush()
}
