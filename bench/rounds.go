package main

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"sync"
	"time"
)

// A harness runs the rows and gathers what they claim.
type harness struct {
	ctx    context.Context
	out    io.Writer
	rounds int
	round  time.Duration
	many   int // how many locks are held where that is asked
	servers
	network string // what lies between, as a part of the rows' names
	claims  []claim
}

// A contender is one way to do a row's work. A turn works for about d and
// returns what it measured.
type contender struct {
	name string
	turn func(d time.Duration) float64
}

// A series is what a contender measured, round by round.
type series struct {
	name, unit string
	values     []float64
}

// race gives each contender a turn of length d in every round, so that whatever
// else the machine does meets them all, after a turn to warm up. The contenders
// begin a round by turns. Each turn is a line for benchstat.
func (h *harness) race(row, unit string, d time.Duration, contenders []contender) map[string]series {
	for _, c := range contenders {
		c.turn(d / 5)
	}
	results := make(map[string]series)
	for round := range h.rounds {
		for i := range contenders {
			c := contenders[(i+round)%len(contenders)]
			check(h.ctx.Err())
			runtime.GC() // nobody cleans up after another
			s := results[c.name]
			s.name, s.unit = c.name, unit
			s.values = append(s.values, c.turn(d))
			results[c.name] = s
			h.printLine(row+h.network, s)
		}
	}
	return results
}

// printLine prints the last value of s as go test prints a benchmark.
func (h *harness) printLine(row string, s series) {
	fmt.Fprintf(h.out, "Benchmark%s/by=%s-%d\t1\t%.6g %s\n", row, s.name, runtime.GOMAXPROCS(0), s.values[len(s.values)-1], s.unit)
}

func (s series) median() float64 {
	v := slices.Sorted(slices.Values(s.values))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

// An acquirer takes a lock and returns what releases it.
type acquirer func() (release func() error, err error)

// rate is a turn that runs each acquirer in a goroutine of its own, over and
// over, and measures how many locks were acquired and released a second.
func rate(acquirers []acquirer) func(time.Duration) float64 {
	return func(d time.Duration) float64 {
		var wg sync.WaitGroup
		counts, errs := make([]int, len(acquirers)), make([]error, len(acquirers))
		start := time.Now()
		for i, acquire := range acquirers {
			wg.Go(func() {
				n := 0
				for ; time.Since(start) < d && errs[i] == nil; n++ {
					errs[i] = pair(acquire)
				}
				counts[i] = n
			})
		}
		wg.Wait()
		elapsed := time.Since(start)
		total := 0
		for i := range acquirers {
			check(errs[i])
			total += counts[i]
		}
		return float64(total) / elapsed.Seconds()
	}
}

func pair(acquire acquirer) error {
	release, err := acquire()
	if err != nil {
		return err
	}
	return release()
}

// cost is a turn that measures the microseconds of an acquire alone. Each is
// followed by its release.
func cost(acquire acquirer) func(time.Duration) float64 {
	return func(d time.Duration) float64 {
		var spent time.Duration
		n := 0
		for start := time.Now(); time.Since(start) < d; n++ {
			began := time.Now()
			release, err := acquire()
			spent += time.Since(began)
			check(err)
			check(release())
		}
		return spent.Seconds() * 1e6 / float64(n)
	}
}

// targets are n names, which no other row uses.
func targets(row string, n int) []string {
	names := make([]string, n)
	for i := range names {
		names[i] = fmt.Sprintf("bench/%s/%d", row, i)
	}
	return names
}

// oneTarget is one name, for each of n that want the same lock.
func oneTarget(row string, n int) []string { return slices.Repeat(targets(row, 1), n) }
