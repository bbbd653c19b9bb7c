package main

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// typical is what each figure was in a real run.
var typical = [nFigures]int64{heap: 1600 << 10, goroutines: 6, inUse: 23, backends: 23, statements: 8}

// series is 60 samples that are flat, as change has changed them.
func series(change func(i int, v *[nFigures]int64)) []sample {
	samples := make([]sample, 60)
	for i := range samples {
		samples[i] = sample{at: time.Duration(i) * 10 * time.Second, values: typical}
		change(i, &samples[i].values)
	}
	return samples
}

// TestLeaks: each leak is found, and nothing else is blamed for it.
func TestLeaks(t *testing.T) {
	grow := func(figure int, each int64, every int) func(int, *[nFigures]int64) {
		return func(i int, v *[nFigures]int64) { v[figure] += each * int64(i/every) }
	}
	tests := []struct {
		name   string
		figure int
		change func(i int, v *[nFigures]int64)
	}{
		{"memory", heap, grow(heap, 50<<10, 1)},
		{"memory, in steps", heap, grow(heap, 1500<<10, 25)},
		{"memory, beside noise", heap, func(i int, v *[nFigures]int64) {
			v[heap] += int64(i)*64<<10 + rand.N[int64](300<<10)
		}},
		{"goroutines", goroutines, grow(goroutines, 1, 5)},
		{"goroutines, late", goroutines, func(i int, v *[nFigures]int64) { v[goroutines] += int64(max(0, i-40)) }},
		{"connections that are not given back", inUse, grow(inUse, 1, 5)},
		{"sessions that the server keeps", backends, grow(backends, 1, 6)},
		{"a lock, in the last sample", locks, grow(locks, 1, 59)},
		{"a lock, in the first", locks, func(i int, v *[nFigures]int64) { v[locks] = int64(60-i) / 60 }},
		{"a place in line, once", tickets, func(i int, v *[nFigures]int64) {
			if i == 30 {
				v[tickets] = 2
			}
		}},
		{"statements", statements, grow(statements, 1, 10)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			findings, err := judge(series(tt.change))
			if err != nil {
				t.Fatal(err)
			}
			if want := figures[tt.figure].name; len(findings) != 1 || !strings.HasPrefix(findings[0], want+":") {
				t.Errorf("got the findings %q, want one, about %s", findings, want)
			}
		})
	}
}

// TestFlat: what goes up and down, or comes to its height in the warm-up, is not
// blamed.
func TestFlat(t *testing.T) {
	tests := []struct {
		name   string
		change func(i int, v *[nFigures]int64)
	}{
		{"still", func(int, *[nFigures]int64) {}},
		{"noise", func(_ int, v *[nFigures]int64) {
			v[heap] += rand.N[int64](800 << 10)
			v[goroutines] += rand.N[int64](3)
			v[inUse] += rand.N[int64](3)
			v[backends] -= rand.N[int64](3)
		}},
		{"a saw", func(i int, v *[nFigures]int64) {
			v[heap] += int64(i%7) << 20
			v[goroutines] += int64(i % 3)
			v[inUse] -= int64(i % 3)
		}},
		{"a few peaks, most of them late", func(i int, v *[nFigures]int64) {
			if i == 33 || i > 44 && i%3 == 0 {
				v[heap] *= 5
				v[goroutines] += 100
				v[inUse] += 50
				v[backends] += 50
			}
		}},
		{"a warm-up", func(i int, v *[nFigures]int64) {
			for f := range locks {
				v[f] = v[f] * int64(min(i, 14)) / 14
			}
		}},
		{"less and less", func(i int, v *[nFigures]int64) {
			v[heap] += int64(60-i) << 20
			v[goroutines] += int64(60 - i)
		}},
		{"a big heap, 8 % bigger", func(i int, v *[nFigures]int64) { v[heap] = 100<<20 + int64(i)*8<<20/60 }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if findings, err := judge(series(tt.change)); len(findings) != 0 || err != nil {
				t.Errorf("got the findings %q and the error %v, want none", findings, err)
			}
		})
	}
}

func TestTooFewSamples(t *testing.T) {
	few := series(func(int, *[nFigures]int64) {})[:fewest]
	if _, err := judge(few); err != nil {
		t.Errorf("%d samples: %v", fewest, err)
	}
	if _, err := judge(few[:fewest-1]); err == nil {
		t.Errorf("%d samples were judged", fewest-1)
	}
}
