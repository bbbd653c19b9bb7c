package main

import (
	"bytes"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestBench runs everything once, for moments: the figures mean nothing, but
// each row must end with its lines and its part of the table.
func TestBench(t *testing.T) {
	var out bytes.Buffer
	h := &harness{out: &out, rounds: 1, round: 2 * time.Millisecond, many: 500}
	if err := run(h, regexp.MustCompile("")); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	for _, want := range []string{"postgres: 1", "BenchmarkSession/driver=pq/conns=32/by=swanlock-", "BenchmarkPool/goroutines=256/by=swanlock-pgx-",
		"BenchmarkPool/goroutines=1024/network=1ms/by=swanlock-pgx-", "BenchmarkMany/by=swanlock/locks=500-",
		"| Pool, pgx, 1 goroutine |", "| Pool, pgx, 256 goroutines, 1 conn, 1 ms of network |", "| hand-overs, 512 waiters in 4 processes |", "| hand-overs, 8 contenders |", "| 500 locks held |", "| acquire with audit, fsync on |", "| heap a held lock |", "| Redis, a pair while one of five hangs |"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output has no %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}
