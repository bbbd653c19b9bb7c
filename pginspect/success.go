package pginspect

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// LastSuccess returns how long ago the work under the lock of target was last done,
// as Succeed has noted it, by the server's clock. ok is false if the audit knows of
// none: there was none, or its row was pruned. An error matches ErrNoAudit or
// ErrOldAudit if a migration is missing.
//
// Ask while you hold the lock, exclusively: then nobody else begins meanwhile.
func LastSuccess(ctx context.Context, on DB, target string) (ago time.Duration, ok bool, err error) {
	t, err := openAudit(ctx, on)
	if err != nil {
		return 0, false, err
	}
	micros, err := t.q.LastSuccess(ctx, int64(swanlock.KeyOf(target)))
	if err != nil || micros < 0 {
		return 0, false, success("look for the last success", err)
	}
	return time.Duration(micros) * time.Microsecond, true, nil
}

// Succeed notes in the audit that the work under the lock of target is done. on is
// the connection whose session holds that lock, with an audit (pglock.WithAudit).
// The error says so if that session has no such lock, and matches ErrNoAudit or
// ErrOldAudit if a migration is missing.
func Succeed(ctx context.Context, on DB, target string) error {
	t, err := openAudit(ctx, on)
	if err != nil {
		return err
	}
	rows, err := t.q.Succeed(ctx, int64(swanlock.KeyOf(target)))
	if err == nil && rows == 0 {
		err = errors.New("this session has no audited lock of that target")
	}
	return success("note a success", err)
}

func success(what string, err error) error {
	if sqlstate.Of(err) == "42703" { // undefined_column
		err = fmt.Errorf("%w: %w", ErrOldAudit, err)
	}
	return explain(what, err)
}
