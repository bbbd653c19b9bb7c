// Command soak puts a steady load on swanlock, for minutes or hours, and
// reports whether memory, goroutines, connections, and what the server keeps
// stay flat.
//
//	go run ./internal/soak -duration 10m
//
// It exits with 0 if all is flat, with 1 if something is not, and with 2 if it
// could not be run or not be judged.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

const (
	exitFlat = iota
	exitNotFlat
	exitCannotRun
)

func main() {
	runtime.MemProfileRate = 16 << 10              // what leaks here is small
	slog.SetDefault(slog.New(slog.DiscardHandler)) // sessions are terminated all the time
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg := config{progress: stdout}
	flags := flag.NewFlagSet("soak", flag.ContinueOnError)
	flags.SetOutput(stderr)
	flags.StringVar(&cfg.dsn, "dsn", "", "a `server` of yours; it writes only in a schema of its own there (default: one that it starts)")
	flags.DurationVar(&cfg.duration, "duration", 10*time.Minute, "how long")
	flags.DurationVar(&cfg.every, "every", 0, "how often it comes to rest and samples (default: a 60th of the duration, at least 5 s)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return exitFlat
		}
		return exitCannotRun
	}
	if cfg.every == 0 {
		cfg.every = max(cfg.duration/60, 5*time.Second)
	}
	if flags.NArg() > 0 || cfg.every < 0 || cfg.duration < fewest*cfg.every {
		fmt.Fprintf(stderr, "soak: -duration %v is too short for %d samples, one every %v, or there are arguments too many\n", cfg.duration, fewest, cfg.every)
		return exitCannotRun
	}
	report, err := soakOn(ctx, cfg)
	if report != nil {
		report.write(stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "soak:", err)
		return exitCannotRun
	}
	return conclude(report, stdout, stderr)
}

// conclude reports whether all was flat.
func conclude(r *report, stdout, stderr io.Writer) int {
	findings, err := r.judge()
	if err != nil {
		fmt.Fprintln(stderr, "soak:", err)
		if len(findings) == 0 {
			return exitCannotRun
		}
	}
	if len(findings) == 0 {
		fmt.Fprintln(stdout, "\nflat")
		return exitFlat
	}
	for _, finding := range findings {
		fmt.Fprintln(stderr, "soak: NOT FLAT:", finding)
	}
	dir, err := r.keepProfiles()
	if err != nil {
		fmt.Fprintln(stderr, "soak: no profiles:", err)
		return exitNotFlat
	}
	fmt.Fprintf(stderr, "soak: goroutines.txt is in %s; what the heap gained since the warm-up:\n  go tool pprof -top -base %[1]s/warm.prof %[1]s/end.prof\n", dir)
	return exitNotFlat
}

// soakOn starts a server if there is none.
func soakOn(ctx context.Context, cfg config) (_ *report, err error) {
	if cfg.dsn == "" {
		server, err := pgserver.Start(ctx)
		if err != nil {
			return nil, err
		}
		defer func() {
			if serr := server.Stop(); serr != nil {
				fmt.Fprintln(cfg.progress, serr)
			}
		}()
		cfg.dsn = server.URL()
	}
	return soak(ctx, cfg)
}
