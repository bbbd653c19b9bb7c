package main

import (
	"bufio"
	"context"
	"database/sql"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/swanlake-io/swanlock/pglock"
)

const waitersProcesses = 4

// waitersRow sets ever more waiters on one key, in four processes with a Pool each.
func waitersRow(h *harness) {
	numbers := []int{8, 32, 128, 512}
	name := func(n int) string { return fmt.Sprintf("swanlock/waiters=%d", n) }
	var contenders []contender
	for _, n := range numbers {
		processes := make([]*child, waitersProcesses)
		for i := range processes {
			processes[i] = startChild("waiters", h.url(), targets("waiters", n+1)[n], strconv.Itoa(n/len(processes)))
			defer processes[i].end()
		}
		contenders = append(contenders, contender{name(n), func(d time.Duration) float64 {
			for _, p := range processes {
				p.tell(d.String())
			}
			grants := 0
			for _, p := range processes {
				grants += must(strconv.Atoi(p.answer()))
			}
			return float64(grants) / d.Seconds()
		}})
	}
	got := h.race(fmt.Sprintf("Waiters/processes=%d", waitersProcesses), "handovers/s", 5*h.round, contenders)
	for _, n := range numbers[1:] {
		g := orientation
		if n == 512 {
			g = atLeast(0.7)
		}
		h.against(fmt.Sprintf("hand-overs, %d waiters in %d processes", n, waitersProcesses), got, name(n), name(8), g)
	}
}

// serveWaiters is one of the processes: args[2] waiters for the target args[1] on
// the server args[0]. It reads how long a turn is, and answers how many grants
// there were.
func serveWaiters(args []string) {
	db := must(sql.Open("pgx", args[0]))
	p := must(pglock.NewPool(db))
	n := must(strconv.Atoi(args[2]))
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	names := make([]string, n)
	for i := range names {
		names[i] = args[1]
	}
	acquirers := waits(ctx, shared(p, n), names)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		fmt.Println(grants(acquirers, must(time.ParseDuration(in.Text()))))
	}
}

// grants counts how often the lock was granted in d, after as much time for the
// line to form. Whoever has had it goes to the end of a line of at least seven
// others: each grant is a hand-over.
func grants(acquirers []acquirer, d time.Duration) int64 {
	var n atomic.Int64
	var wg sync.WaitGroup
	start := time.Now()
	for _, acquire := range acquirers {
		wg.Go(func() {
			for time.Since(start) < 2*d {
				release := must(acquire())
				if at := time.Since(start); at >= d && at < 2*d {
					n.Add(1)
				}
				check(release())
			}
		})
	}
	wg.Wait()
	return n.Load()
}
