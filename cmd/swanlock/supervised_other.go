//go:build !linux

package main

import (
	"context"
	"os"
)

const supervisorName = "supervise"

func cmdSupervise(context.Context, streams, []string) error {
	return failf(exitUsage, "%s needs Linux", supervisorName)
}

// startCommand starts the command, unless ready returns an error. What it starts in
// a process group of its own is not known here.
func startCommand(o runOptions, path string, env []string, _ *os.File, s streams, _ func(error), ready func() error) (job, error) {
	if err := ready(); err != nil {
		return nil, err
	}
	c, err := startChild("run", path, o.argv, env, s)
	if err != nil {
		return nil, err
	}
	return c, nil
}

// reapOrphans needs a kernel that gives us orphans.
func reapOrphans() {}
