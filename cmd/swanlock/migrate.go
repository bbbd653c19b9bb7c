package main

import (
	"bufio"
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"

	"github.com/swanlake-io/swanlock/migrations"
)

func cmdMigrate(ctx context.Context, s streams, args []string) error {
	args, err := parse(newFlags("migrate"), args, 1, 1)
	if err != nil {
		return err
	}
	var do func(context.Context, streams, *sql.DB) error
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

	return onServer(ctx, "migrate", func(ctx context.Context, db *sql.DB) error {
		if err := do(ctx, s, db); err != nil {
			return failf(exitUnavailable, "migrate %s: %w", args[0], err)
		}
		return nil
	})
}

// migrator applies migrations, by one process at a time.
func migrator(db *sql.DB) (*goose.Provider, error) {
	return migratorWith(db, newMigrationLock(migrations.Table))
}

func migratorWith(db *sql.DB, locker lock.SessionLocker) (*goose.Provider, error) {
	return goose.NewProvider(goose.DialectPostgres, db, migrations.FS,
		goose.WithTableName(migrations.Table),
		goose.WithSessionLocker(locker),
		goose.WithDisableGlobalRegistry(true),
		goose.WithLogger(goose.NopLogger()))
}

func migrateUp(ctx context.Context, s streams, db *sql.DB) error {
	if err := refusePooler(ctx, db); err != nil {
		return err
	}
	// goose makes its version table before it asks for the lock.
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	_, err = adoptable(ctx, conn)
	if err = errors.Join(err, conn.Close()); err != nil {
		return err
	}
	adopting := &adopter{SessionLocker: newMigrationLock(migrations.Table)}
	p, err := migratorWith(db, adopting)
	if err != nil {
		return err
	}
	done, err := reached(p.Up(ctx))
	if err == nil && len(adopting.adopted)+len(done) == 0 {
		return print(s.out, "nothing to do\n")
	}
	said := ""
	for _, file := range adopting.adopted {
		said += "adopted " + file + "\n"
	}
	return errors.Join(err, print(s.out, said+lines("applied", done)))
}

// reached returns what goose has done, also before a migration that failed.
func reached(done []*goose.MigrationResult, err error) ([]*goose.MigrationResult, error) {
	if partial, ok := errors.AsType[*goose.PartialError](err); ok {
		done = partial.Applied
	}
	return done, err
}

// lines says of each migration what was done.
func lines(what string, done []*goose.MigrationResult) (said string) {
	for _, m := range done {
		said += what + " " + m.Source.Path + "\n"
	}
	return said
}

func migrateDown(ctx context.Context, s streams, db *sql.DB) error {
	if err := refusePooler(ctx, db); err != nil {
		return err
	}
	p, err := migrator(db)
	if err != nil {
		return err
	}
	if err := removable(ctx, db); err != nil {
		return err
	}
	done, err := reached(p.DownTo(ctx, 0))
	if err == nil && len(done) == 0 || errors.Is(err, goose.ErrNoNextVersion) {
		return print(s.out, "nothing to do\n")
	}
	return errors.Join(err, print(s.out, lines("removed", done)))
}

// removable fails if something stands on what the migrations have made, such as a
// trigger on the fence guard: goose would fail too, but half-way, when it has
// removed which holds succeeded. It also fails if lock_audit is partitioned.
func removable(ctx context.Context, db *sql.DB) error {
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	if at, err := appliedAt(ctx, conn, auditVersion); err != nil || at.IsZero() {
		return err
	}
	var partitioned bool
	err = conn.QueryRowContext(ctx, "SELECT EXISTS (SELECT FROM pg_catalog.pg_partitioned_table WHERE partrelid OPERATOR(pg_catalog.=) "+inSchema("lock_audit")+")",
		pgx.QueryExecModeSimpleProtocol).Scan(&partitioned)
	if err != nil {
		return err
	}
	if partitioned { // Indexes of such a table cannot be dropped or built concurrently.
		return errors.New("nothing was removed: lock_audit is partitioned; to remove it with all partitions: " +
			"DROP TABLE lock_audit, lock_fences, " + migrations.Table + "; DROP FUNCTION lock_fenced(), lock_fence(bigint, bigint)")
	}
	tx, err := conn.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, `DO $$
BEGIN
    EXECUTE pg_catalog.format('
        DROP FUNCTION IF EXISTS %1$I.lock_fenced(), %1$I.lock_fence(bigint, bigint);
        DROP TABLE IF EXISTS %1$I.lock_fences, %1$I.lock_audit;
    ', pg_catalog.current_schema());
END
$$`)
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Detail != "" {
		err = fmt.Errorf("nothing was removed: %w: %s", err, refused.Detail)
	}
	return err
}

// migrateStatus only looks: it writes nothing, and takes no lock.
func migrateStatus(ctx context.Context, s streams, db *sql.DB) error {
	p, err := migrator(db)
	if err != nil {
		return err
	}
	conn, err := db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	for _, m := range p.ListSources() {
		line, err := statusOf(ctx, conn, m)
		if err == nil {
			err = print(s.out, fmt.Sprintf("%-27s  %s\n", line, filepath.Base(m.Path)))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func statusOf(ctx context.Context, conn *sql.Conn, m *goose.Source) (string, error) {
	at, err := appliedAt(ctx, conn, m.Version)
	if err != nil || !at.IsZero() {
		return "applied " + at.UTC().Format(time.DateTime), err
	}
	there, err := audit(ctx, conn)
	if err != nil {
		return "", err
	}
	hidden, err := versionsHidden(ctx, conn)
	if err != nil {
		return "", err
	}
	made, ok := madeBy(there)
	switch {
	case !ok && m.Version == auditVersion:
		return "another table is in the way", nil
	case hidden && m.Version > made.version:
		return "unknown: no right to read", nil
	case hidden:
		return "applied", nil
	case m.Version > made.version:
		return "pending", nil
	}
	return "applied, not by migrate up", nil
}

// upSQL is what the migrations do, without what only goose reads, and so that it
// may run in a transaction: a tool of the user's own may insist on that, and on a
// new table no index is worth more.
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
				line := strings.Replace(lines.Text(), " INDEX CONCURRENTLY ", " INDEX ", 1)
				if strings.HasPrefix(line, "CREATE INDEX ") && line != lines.Text() {
					line += " -- on a table in use: CREATE INDEX CONCURRENTLY, in no transaction"
				}
				fmt.Fprintln(&out, line)
			}
		}
		if err := lines.Err(); err != nil {
			return "", err
		}
	}
	return strings.TrimRight(out.String(), "\n") + "\n", nil
}
