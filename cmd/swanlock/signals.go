package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// passedOn are the signals that swanlock run passes on to its command.
var passedOn = []os.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2}

// catch catches signals, save those that nohup(1) or a shell made swanlock
// ignore: a command that it runs ignores them as well.
func catch(signals ...os.Signal) (<-chan os.Signal, func()) {
	c := make(chan os.Signal, 16)
	for _, sig := range signals {
		if !signal.Ignored(sig) {
			signal.Notify(c, sig)
		}
	}
	return c, func() { signal.Stop(c) }
}

// A signalled is the cause of a context that a signal ended.
type signalled struct{ sig syscall.Signal }

func (s signalled) Error() string { return fmt.Sprintf("ended by a signal (%v)", s.sig) }

// endOnSignal returns a context, which ends at the first of signals for which ends
// reports true, and a function to call when it is of no use any more. From then on
// signals is left to others.
func endOnSignal(ctx context.Context, signals <-chan os.Signal, ends func(os.Signal) bool) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case sig := <-signals:
				if ends(sig) {
					cancel(signalled{sig.(syscall.Signal)})
				}
			case <-ctx.Done():
				return
			}
		}
	}()
	return ctx, func() { cancel(nil); <-stopped }
}

// anySignal reports true: before a command runs, each signal does what it would do
// to the command.
func anySignal(os.Signal) bool { return true }

// untilSignal is endOnSignal for what a user ends with Ctrl-C.
func untilSignal(ctx context.Context) (context.Context, func()) {
	signals, release := catch(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	ctx, stop := endOnSignal(ctx, signals, anySignal)
	return ctx, func() { stop(); release() }
}

// interrupted is the failure of a command whose context a signal ended, or nil.
func interrupted(ctx context.Context, name string) error {
	if s, ok := errors.AsType[signalled](context.Cause(ctx)); ok {
		return failf(exitSignal+int(s.sig), "%s: %w", name, s)
	}
	return nil
}
