package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/internal/verify"
	"github.com/swanlake-io/swanlock/migrations"
	"github.com/swanlake-io/swanlock/pglock"
)

// Exit codes of verify.
const (
	exitViolation    = 1
	exitCannotVerify = 2
)

// verifyWorkerName is a command for verify alone: one of its workers.
const verifyWorkerName = "verify-worker"

func cmdVerifyWorker(ctx context.Context, s streams, args []string) error {
	if _, err := parse(newFlags(verifyWorkerName), args, 0, 0); err != nil {
		return err
	}
	return verify.Worker(ctx, s.in, s.out)
}

// verifyOptions is what the arguments of verify say.
type verifyOptions struct {
	embedded, json bool
	dsn, out       string
	duration       time.Duration
	workers        int
	faults         []string
	seed           uint64
}

func parseVerify(args []string) (o verifyOptions, err error) {
	flags := newFlags("verify")
	faults := flags.String("faults", "all", "")
	flags.BoolVar(&o.embedded, "embedded", false, "")
	flags.StringVar(&o.dsn, "dsn", "", "")
	flags.DurationVar(&o.duration, "duration", 30*time.Second, "")
	flags.IntVar(&o.workers, "workers", 4, "")
	flags.Uint64Var(&o.seed, "seed", 0, "")
	flags.BoolVar(&o.json, "json", false, "")
	flags.StringVar(&o.out, "out", "", "")
	if _, err := parse(flags, args, 0, 0); err != nil {
		return o, err
	}
	wrong := func(format string, args ...any) (verifyOptions, error) {
		return o, fmt.Errorf("verify: "+format+" (see swanlock verify --help)", args...)
	}
	if o.faults, err = verify.ParseFaults(*faults); err != nil {
		return wrong("--faults: %w", err)
	}
	switch {
	case o.embedded == (o.dsn != ""):
		return wrong("give either --embedded, for a server of its own, or --dsn, for one of yours that is not in production")
	case o.duration < time.Second:
		return wrong("--duration %v is under a second", o.duration)
	case o.workers < 1 || o.workers > 64:
		return wrong("--workers %d: from 1 to 64 of them make sense", o.workers)
	}
	if !o.embedded {
		if i := slices.IndexFunc(o.faults, verify.NeedsOwnServer); i >= 0 && *faults != "all" {
			return wrong("--faults %s needs --embedded: a server of yours is neither restarted nor paused", o.faults[i])
		}
		o.faults = slices.DeleteFunc(slices.Clone(o.faults), verify.NeedsOwnServer)
	}
	if o.seed == 0 {
		o.seed = rand.Uint64N(1_000_000) + 1
	}
	if o.out == "" {
		o.out = fmt.Sprintf("swanlock-verify-%d", o.seed)
	}
	return o, nil
}

func cmdVerify(ctx context.Context, s streams, args []string) (err error) {
	o, err := parseVerify(args)
	if err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return err
		}
		return &failure{exitCannotVerify, err}
	}
	ctx, stop := untilSignal(ctx)
	defer stop()
	found, err := runVerify(ctx, s, o)
	if ended := interrupted(ctx, "verify"); ended != nil {
		return ended
	}
	switch {
	case found > 0 && err != nil:
		return failf(exitViolation, "verify: %d violations with seed %d; then: %w", found, o.seed, err)
	case found > 0:
		return failf(exitViolation, "verify: %d violations with seed %d; the history and a picture of it are in %s", found, o.seed, o.out)
	case err != nil:
		return failf(exitCannotVerify, "verify: %w", err)
	}
	return nil
}

// runVerify returns the number of violations; its error says that it could not
// look for any.
func runVerify(ctx context.Context, s streams, o verifyOptions) (found int, err error) {
	cfg := verify.Config{Duration: o.duration, Workers: o.workers, Faults: o.faults, Seed: o.seed, Progress: s.err}
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cfg.Worker = []string{self, verifyWorkerName}
	if cfg.MigrationsSQL, err = upSQL(migrations.FS); err != nil {
		return 0, err
	}
	if o.embedded {
		server, serr := pgserver.Start(ctx)
		if serr != nil {
			return 0, serr
		}
		defer func() { err = errors.Join(err, server.Stop()) }()
		host, port, _ := strings.Cut(server.Addr(), ":")
		cfg.DSN = fmt.Sprintf("host=%s port=%s user=postgres dbname=postgres sslmode=disable", host, port)
		cfg.Restart = func(ctx context.Context, immediate bool) error {
			mode := pgserver.Fast
			if immediate {
				mode = pgserver.Immediate
			}
			return server.Restart(ctx, mode)
		}
		cfg.Pause = server.Pause
	} else if cfg.DSN, err = normalDSN(o.dsn); err != nil {
		return 0, err
	}
	fmt.Fprintf(s.err, "verifying with seed %d, %d workers and the faults %s for %v\n", o.seed, o.workers, orNone(o.faults), o.duration)
	report, err := verify.Run(ctx, cfg)
	if report == nil {
		return 0, err
	}
	return len(report.Findings()), errors.Join(tell(s, o, report), err)
}

// tell writes the report, and the history if there is something to see in it.
func tell(s streams, o verifyOptions, report *verify.Report) error {
	show := report.Table
	if o.json {
		show = report.JSON
	}
	if err := show(s.out); err != nil {
		return err
	}
	const most = 10
	findings := report.Findings()
	if !o.json {
		for i, f := range findings {
			if i == most {
				fmt.Fprintf(s.out, "... and %d more\n", len(findings)-most)
				break
			}
			fmt.Fprintf(s.out, "\n%s %s\n  %s\n", strings.ToUpper(f.Kind), f.Target, f.Text)
		}
	}
	if idle := report.Idle(); len(idle) > 0 {
		fmt.Fprintf(s.err, "never came about: %s (a longer --duration helps)\n", strings.Join(idle, ", "))
	}
	if len(findings) > 0 {
		return report.WriteHistory(o.out)
	}
	if n := report.Unknown(); n > 0 {
		return fmt.Errorf("%d histories took too long to judge: nothing is known of them (seed %d)", n, o.seed)
	}
	if report.Counts.Granted == 0 {
		return errors.New("no lock was granted at all: nothing was verified")
	}
	return nil
}

// normalDSN makes a connection string one that both drivers read alike.
func normalDSN(dsn string) (string, error) {
	before, had := os.LookupEnv(dsnVar)
	if err := os.Setenv(dsnVar, dsn); err != nil {
		return "", err
	}
	defer func() {
		if had {
			os.Setenv(dsnVar, before)
		} else {
			os.Unsetenv(dsnVar)
		}
	}()
	normal, err := pglock.DSNFromEnv()
	if err != nil { // it names the variable
		return "", errors.New(strings.ReplaceAll(err.Error(), dsnVar, "--dsn"))
	}
	return normal, nil
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ",")
}
