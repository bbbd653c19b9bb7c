package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// demoHolderName is a command for the demo alone: a program that holds a lock
// by the library, and tells its fence, and what Err says when it is asked.
const demoHolderName = "demo-holder"

// expired is what it should say after a pause that outlasted the TTL.
const expired = "swanlock.ErrExpired"

func cmdDemoHolder(ctx context.Context, s streams, args []string) error {
	args, err := parse(newFlags(demoHolderName), args, 2, 2)
	if err != nil {
		return err
	}
	ttl, err := time.ParseDuration(args[0])
	if err != nil {
		return failf(exitUsage, "%s: %w", demoHolderName, err)
	}
	db, err := open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	sess := pglock.NewSession(conn, pglock.WithAudit())
	defer sess.Close(ctx)
	lock, err := sess.Acquire(ctx, args[1], swanlock.WithTTL(ttl), swanlock.WithAutoRefresh(), swanlock.WithFence(), swanlock.WithOwner("to-be-stopped"))
	if err != nil {
		return err
	}
	defer lock.Release(ctx)
	if err := print(s.out, fmt.Sprintln(lock.Info().Fence)); err != nil {
		return err
	}
	question := bufio.NewScanner(s.in)
	for question.Scan() {
		said := "still held"
		if err := lock.Err(); errors.Is(err, swanlock.ErrExpired) {
			said = expired
		} else if err != nil {
			said = err.Error()
		}
		if err := print(s.out, said+"\n"); err != nil {
			return err
		}
	}
	return question.Err()
}
