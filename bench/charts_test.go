package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestCharts draws from lines as a run prints them: two rounds of two numbers.
func TestCharts(t *testing.T) {
	const output = `Unit pairs/s better=higher
BenchmarkPool/goroutines=1/by=swanlock-pgx-2	1	1000 pairs/s
BenchmarkPool/goroutines=1/by=swanlock-pgx-2	1	3000 pairs/s
BenchmarkPool/goroutines=1024/by=swanlock-pgx-2	1	50000 pairs/s
BenchmarkPool/goroutines=1/network=1ms/by=etcd-2	1	10 pairs/s
BenchmarkMany/by=swanlock/locks=0-2	1	70 µs/pair

| what | ours |
`
	points, err := read(strings.NewReader(output))
	if err != nil {
		t.Fatal(err)
	}
	for p, want := range map[point]float64{
		{"Pool", "swanlock-pgx", "pairs/s", "goroutines", 1}:     2000,
		{"Pool", "swanlock-pgx", "pairs/s", "goroutines", 1024}:  50000,
		{"Pool/network=1ms", "etcd", "pairs/s", "goroutines", 1}: 10,
		{"Many", "swanlock", "µs/pair", "locks", 0}:              70,
	} {
		if got, ok := points[p]; !ok || got.median() != want {
			t.Errorf("%+v: %v, want %v", p, got.values, want)
		}
	}
	dir := t.TempDir()
	if err := drawCharts(strings.NewReader(output), dir); err != nil {
		t.Fatal(err)
	}
	svg, err := os.ReadFile(filepath.Join(dir, "bench-pairs.svg"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"prefers-color-scheme: dark", ">1,024<", "swanlock, a Pool"} {
		if !strings.Contains(string(svg), want) {
			t.Errorf("the chart has no %q", want)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "bench-handovers.svg")); err == nil {
		t.Error("a chart of nothing was drawn")
	}
	if err := drawCharts(strings.NewReader("nothing"), dir); err == nil {
		t.Error("no error without any points")
	}
}
