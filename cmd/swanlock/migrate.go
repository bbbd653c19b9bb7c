package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/swanlake-io/swanlock/migrations"
	"github.com/swanlake-io/swanlock/pglock"
)

func cmdMigrate(ctx context.Context, s streams, args []string) error {
	args, err := parse(newFlags("migrate"), args, 1, 1)
	if err != nil {
		return err
	}
	var do func(context.Context, streams, *goose.Provider) error
	switch args[0] {
	case "up":
		do = migrateUp
	case "down":
		do = migrateDown
	case "status":
		do = migrateStatus
	case "print":
		text, err := upSQL(migrations.FS)
		if err != nil {
			return err
		}
		return print(s.out, text)
	default:
		return failf(exitUsage, "migrate: %s is not one of up, down, status and print", quote(args[0]))
	}

	ctx, stop := untilSignal(ctx)
	defer stop()
	db, err := open(ctx)
	if err != nil {
		if ended := interrupted(ctx, "migrate"); ended != nil {
			return ended
		}
		return err
	}
	defer db.Close()
	p, err := migrator(db)
	if err == nil {
		err = do(ctx, s, p)
	}
	if err != nil {
		if ended := interrupted(ctx, "migrate"); ended != nil {
			return ended
		}
		return failf(exitUnavailable, "migrate %s: %w", args[0], err)
	}
	return nil
}

// migrator applies migrations, by one process at a time.
func migrator(db *sql.DB) (*goose.Provider, error) {
	// A lock of our own, so that we do not wait for other users of goose. Once a
	// second for five minutes.
	locker, err := lock.NewPostgresSessionLocker(
		lock.WithLockID(int64(pglock.KeyOf(migrations.Table))),
		lock.WithLockTimeout(1, 300))
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
		goose.WithTableName(migrations.Table),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
}

func migrateUp(ctx context.Context, s streams, p *goose.Provider) error {
	done, err := p.Up(ctx)
	if err != nil {
		return err
	}
	if len(done) == 0 {
		return print(s.out, "nothing to do\n")
	}
	for _, m := range done {
		if err := print(s.out, "applied "+m.Source.Path+"\n"); err != nil {
			return err
		}
	}
	return nil
}

func migrateDown(ctx context.Context, s streams, p *goose.Provider) error {
	m, err := p.Down(ctx)
	if errors.Is(err, goose.ErrNoNextVersion) {
		return print(s.out, "nothing to do\n")
	}
	if err != nil {
		return err
	}
	return print(s.out, "removed "+m.Source.Path+"\n")
}

func migrateStatus(ctx context.Context, s streams, p *goose.Provider) error {
	all, err := p.Status(ctx)
	if err != nil {
		return err
	}
	for _, m := range all {
		line := "pending                    "
		if m.State == goose.StateApplied {
			line = "applied " + m.AppliedAt.UTC().Format(time.DateTime)
		}
		if err := print(s.out, line+"  "+m.Source.Path+"\n"); err != nil {
			return err
		}
	}
	return nil
}

// upSQL is what the migrations do, without what only goose reads.
func upSQL(fsys fs.FS) (string, error) {
	names, err := fs.Glob(fsys, "*.sql")
	if err != nil {
		return "", err
	}
	var out strings.Builder
	for _, name := range names {
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&out, "-- %s\n", name)
		up := false
		lines := bufio.NewScanner(bytes.NewReader(text))
		for lines.Scan() {
			if note, ok := strings.CutPrefix(lines.Text(), "-- +goose "); ok {
				switch strings.TrimSpace(note) {
				case "Up":
					up = true
				case "Down":
					up = false
				}
			} else if up {
				fmt.Fprintln(&out, lines.Text())
			}
		}
		if err := lines.Err(); err != nil {
			return "", err
		}
	}
	return strings.TrimRight(out.String(), "\n") + "\n", nil
}
