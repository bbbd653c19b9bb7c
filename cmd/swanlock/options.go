package main

import (
	"path/filepath"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

const (
	defaultTTL   = 30 * time.Second
	defaultGrace = 10 * time.Second
	minTTL       = 100 * time.Millisecond // what a process can be expected to keep
	maxTTL       = 24 * 24 * time.Hour    // idle_session_timeout holds 24.8 days
)

// runOptions is what the arguments of run say.
type runOptions struct {
	ttl, timeout, grace  time.Duration
	atLeast              time.Duration // how long the lock is kept, at least
	onceEvery            time.Duration // since the last success; 0: as often as asked
	owner                string
	wait                 bool // for as long as it takes
	shared, fence, audit bool
	poll, detach, quiet  bool
	file                 bool   // instead of a server
	dir                  string // of the files
	heldCode             int
	target               string
	argv                 []string
}

func parseRun(args []string) (runOptions, error) {
	var o runOptions
	flags := newFlags("run")
	flags.DurationVar(&o.ttl, "ttl", defaultTTL, "")
	flags.DurationVar(&o.timeout, "timeout", 0, "")
	flags.DurationVar(&o.grace, "grace", defaultGrace, "")
	flags.DurationVar(&o.atLeast, "at-least", 0, "")
	flags.DurationVar(&o.onceEvery, "once-every", 0, "")
	flags.StringVar(&o.owner, "owner", "", "")
	flags.BoolVar(&o.wait, "wait", false, "")
	flags.BoolVar(&o.shared, "shared", false, "")
	flags.BoolVar(&o.fence, "fence", false, "")
	flags.BoolVar(&o.audit, "audit", false, "")
	flags.BoolVar(&o.poll, "poll", false, "")
	flags.BoolVar(&o.detach, "detach", false, "")
	flags.BoolVar(&o.quiet, "quiet", false, "")
	flags.BoolVar(&o.file, "file", false, "")
	flags.StringVar(&o.dir, "dir", "", "")
	flags.IntVar(&o.heldCode, "E", exitHeld, "")
	flags.IntVar(&o.heldCode, "conflict-exit-code", exitHeld, "")

	args, err := parse(flags, args, 1, -1)
	if err != nil {
		return o, err
	}
	wrong := func(format string, args ...any) (runOptions, error) {
		return o, failf(exitUsage, "run: "+format+" (see swanlock run --help)", args...)
	}
	o.target = args[0]
	switch {
	case len(args) < 2 || args[1] != "--":
		return wrong("after the target %s come -- and the command; flags go before it", quote(o.target))
	case len(args) < 3 || args[2] == "":
		return wrong("the command after -- is missing")
	case o.wait && o.timeout != 0:
		return wrong("--wait waits for as long as it takes, --timeout does not: give one of them")
	case o.poll && !o.wait && o.timeout == 0:
		return wrong("--poll is a way to wait: give --wait or --timeout as well")
	case o.dir != "" && !o.file:
		return wrong("--dir is for --file")
	case o.file && o.audit:
		return wrong("--audit is a table of a server: --file has none")
	case o.file && o.onceEvery != 0:
		return wrong("--once-every is remembered in a table of a server: --file has none")
	case o.file && o.poll:
		return wrong("--poll spares a server, and --file has none")
	case o.timeout < 0:
		return wrong("--timeout %v is negative", o.timeout)
	case o.atLeast < 0:
		return wrong("--at-least %v is negative", o.atLeast)
	case o.onceEvery < 0:
		return wrong("--once-every %v is negative", o.onceEvery)
	case o.onceEvery > 0 && o.shared:
		return wrong("--once-every is for one holder at a time, --shared for many: give one of them")
	case o.grace < 0:
		return wrong("--grace %v is negative", o.grace)
	case o.ttl < 0:
		return wrong("--ttl %v is negative: 0 is none", o.ttl)
	case o.ttl > 0 && o.ttl < minTTL:
		return wrong("--ttl %v is under %v, which no process could keep; 0 is none", o.ttl, minTTL)
	case o.ttl > maxTTL:
		return wrong("--ttl %v is over %v, more than the server can keep", o.ttl, maxTTL)
	case o.file && o.dir == "" && filepath.IsAbs(o.target) && o.ttl > filelock.SwanLakeTTL:
		return wrong("--ttl %v is over %v, after which SwanLake's processes take the lock of a path: give less, or --dir", o.ttl, filelock.SwanLakeTTL)
	case o.shared && o.fence:
		return wrong("a shared lock has no fence: leave out --shared or --fence")
	case o.heldCode < 0 || o.heldCode > 255:
		return wrong("-E %d is not an exit code: they go from 0 to 255", o.heldCode)
	}
	o.argv = args[2:]
	o.audit = o.audit || o.onceEvery > 0
	if _, err := swanlock.NewOptions(o.target, o.lockOptions()...); err != nil {
		return wrong("%s", plain(err))
	}
	return o, nil
}

func (o runOptions) lockOptions() []swanlock.Option {
	opts := []swanlock.Option{swanlock.WithTTL(o.ttl), swanlock.WithOwner(o.owner)}
	if o.shared {
		opts = append(opts, swanlock.WithShared())
	}
	if o.fence {
		opts = append(opts, swanlock.WithFence())
	}
	return opts
}
