// Command bench measures swanlock against its floors and its peers, on servers
// that it starts itself. See README.md.
//
//	cd bench && go run .
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// rows are what is measured. README.md tells what each shows.
var rows = []struct {
	name string
	run  func(*harness)
}{
	{"Session", sessionRow},
	{"Pool1", pool1Row},
	{"Pool32", pool32Row},
	{"Pool256", pool256Row},
	{"Goroutines", goroutinesRow},
	{"Network", networkRow},
	{"Kinds", kindsRow},
	{"Fair", fairRow},
	{"Waiters", waitersRow},
	{"Held", heldRow},
	{"Many", manyRow},
	{"Shards", shardsRow},
	{"Audit", auditRow},
	{"Memory", memoryRow},
	{"Etcd", etcdRow},
	{"Consul", consulRow},
	{"Redis", redisRow},
}

func main() {
	childMain()
	rounds := flag.Int("rounds", 25, "how many `rounds` a row has; in each, every contender has one turn")
	round := flag.Duration("round", 60*time.Millisecond, "how long a turn is; the hand-overs take five times this")
	var names []string
	for _, row := range rows {
		names = append(names, row.name)
	}
	which := flag.String("rows", "", "run only the rows that match this `regexp`: "+strings.Join(names, ", "))
	charts := flag.String("charts", "", "measure nothing, but read the output of a run and draw its charts in this `folder`")
	flag.Parse()
	pattern, err := regexp.Compile(*which)
	if err != nil || flag.NArg() > 0 || *rounds < 1 || *round <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	if *charts != "" {
		if err := drawCharts(os.Stdin, *charts); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	if err := run(&harness{out: os.Stdout, rounds: *rounds, round: *round, many: 10_000}, pattern); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(h *harness, which *regexp.Regexp) (err error) {
	stop, cancelStop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancelStop()
	// Like a request's, the context can be cancelled and has a deadline. Drivers
	// watch for the one; redislock would make the other itself, for each lock.
	ctx, cancel := context.WithTimeout(stop, time.Hour)
	defer cancel()
	h.ctx = ctx
	defer h.stopServers()
	defer func() { // of must
		if r := recover(); r != nil {
			failure, ok := r.(failure)
			if !ok {
				panic(r)
			}
			err = failure.error
		}
	}()
	h.startServers()
	h.printHeader()
	for _, row := range rows {
		if which.MatchString(row.name) {
			row.run(h)
		}
	}
	h.printTable()
	return nil
}

// A failure ends the run. A benchmark that goes on after an error measures
// nothing.
type failure struct{ error }

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		fail(err)
	}
	return v
}

// fail says where the caller of its caller is.
func fail(err error) {
	_, file, line, _ := runtime.Caller(2)
	panic(failure{fmt.Errorf("%s:%d: %w", filepath.Base(file), line, err)})
}
