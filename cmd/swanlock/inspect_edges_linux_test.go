package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// What ls --watch --json prints is JSON, also while the server cannot be used; that
// it cannot is told beside it.
func TestLsWatchWithoutItsServer(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	p := swanlockCommand(t, env(dsn), "ls", "--watch", "--json", "--interval", "100ms")
	var out, errs screen
	p.Stdout, p.Stderr = &out, &errs
	p.start()
	eventually(t, "look", func() bool { return strings.Count(out.String(), "\n") > 1 })
	execSQL(t, migrated(t), "DROP DATABASE "+nameOf(t, dsn)+" WITH (FORCE)")
	eventually(t, "error", func() bool {
		return strings.Contains(out.String(), "trying again") || strings.Contains(errs.String(), "trying again")
	})
	_ = p.Process.Signal(syscall.SIGINT)
	p.want(0)
	for line := range strings.Lines(out.String()) {
		if !json.Valid([]byte(line)) {
			t.Errorf("a line of --json is %s", line)
		}
	}
	hasAll(t, "stderr", errs.String(), "swanlock: ls: ", "; trying again\n")
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

// However a server writes dates, they are read.
func TestMigrateUnderAnyDateStyle(t *testing.T) {
	t.Parallel()
	for _, style := range []string{"German", "SQL, DMY", "Postgres, MDY"} {
		t.Run(style, func(t *testing.T) {
			dsn := newDatabase(t)
			execSQL(t, dsn, "ALTER DATABASE "+nameOf(t, dsn)+" SET DateStyle = '"+style+"'")
			migrateSays(t, dsn, "up", "applied")
			migrateSays(t, dsn, "up", "nothing to do\n")
			migrateSays(t, dsn, "status", "applied 20", "  00005_lock_audit_long.sql\n")
		})
	}
}

// The audit is in the first schema of the search_path, and status tells of that one.
func TestMigrateInTheFirstSchema(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"up", "print"} {
		t.Run(how, func(t *testing.T) {
			dsn := newDatabase(t)
			if how == "up" {
				migrateSays(t, dsn, "up", "applied")
			} else {
				_, text, _ := runHere("migrate", "print")
				execSQL(t, dsn, text)
			}
			execSQL(t, dsn, `CREATE SCHEMA "An app"`, "ALTER DATABASE "+nameOf(t, dsn)+` SET search_path = "An app", public`)
			migrateSays(t, dsn, "status", "pending                      00001_lock_audit.sql\n", "pending                      00005_lock_audit_long.sql\n")
			migrateSays(t, dsn, "up", "applied 00001_lock_audit.sql\n", "applied 00005_lock_audit_long.sql\n")
			migrateSays(t, dsn, "status", "applied 20")
			var columns string
			if err := openDB(t, dsn).QueryRow(`SELECT string_agg(table_schema || '.' || table_name || '.' || column_name, ' ' ORDER BY table_schema)
				FROM information_schema.columns WHERE table_name = 'lock_audit' AND column_name = 'succeeded_at'`).Scan(&columns); err != nil {
				t.Fatal(err)
			}
			if want := "An app.lock_audit.succeeded_at public.lock_audit.succeeded_at"; columns != want {
				t.Errorf("there is %s, want %s", columns, want)
			}
			for _, schema := range []string{"public", "An app"} {
				var indexes int
				if err := openDB(t, dsn).QueryRow("SELECT count(*) FROM pg_indexes WHERE schemaname = $1 AND tablename = 'lock_audit'", schema).Scan(&indexes); err != nil || indexes != 5 {
					t.Errorf("%s.lock_audit has %d indexes, %v; want 5", schema, indexes, err)
				}
			}
			migrateSays(t, dsn, "down", "removed")
			if got := tables(t, dsn); !strings.HasPrefix(got, "lock_audit lock_fences") {
				t.Errorf("in public there is %s", got)
			}
		})
	}
}

// A holder that has released the target while its killer was thinking is left alone,
// though its session holds another lock; and the other holders are ended.
func TestKillLooksAgain(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	one := heldHere(t, dsn, "catalog", "one", swanlock.WithShared())
	two := heldHere(t, dsn, "catalog", "two", swanlock.WithShared())
	conn, err := openDB(t, dsn).Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s := pglock.NewSession(conn, pglock.WithAudit())
	defer s.Close(t.Context())
	other, err := s.TryAcquire(t.Context(), "other")
	if err != nil {
		t.Fatal(err)
	}
	reader, err := s.TryAcquire(t.Context(), "catalog", swanlock.WithShared())
	if err != nil {
		t.Fatal(err)
	}

	p, keyboard, shown := onTerminal(t, 200, 24, env(dsn), "kill", "catalog")
	asked := 0
	ask := func() {
		t.Helper()
		asked++
		eventually(t, "question", func() bool { return strings.Count(shown.String(), "in line? [y/N] ") == asked })
	}
	for range 3 {
		ask()
		if strings.Contains(lastLine(shown.String()), fmt.Sprintf("End session %d,", reader.(*pglock.PostgresLock).BackendPID())) {
			if err := reader.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		io.WriteString(keyboard, "y\n")
	}
	p.want(0)
	hasAll(t, "kill", shown.whole(), "has ended by itself, or has no such lock any more")
	if err := other.Refresh(t.Context()); err != nil {
		t.Errorf("the session that has released the target was ended: %v", err)
	}
	for _, held := range []*pglock.PostgresLock{one, two} {
		if err := held.Refresh(t.Context()); err == nil {
			t.Errorf("session %d still holds the target:\n%s", held.BackendPID(), shown.String())
		}
	}
}

// A number that no process can have is a target.
func TestKillNumbers(t *testing.T) {
	t.Parallel()
	dsn := newAudited(t)
	for _, target := range []string{"99999999999999999999", "2147483648", "-7"} {
		held := heldHere(t, dsn, target, "one")
		swanlockCommand(t, env(dsn), "kill", "--yes", "--", target).start().want(0)
		if err := held.Refresh(t.Context()); err == nil {
			t.Errorf("%s is held", target)
		}
	}
}

// lastLine is the last line.
func lastLine(text string) string { return text[strings.LastIndex(text, "\n")+1:] }

func TestCellQuotes(t *testing.T) {
	for text, want := range map[string]string{
		"a": "a", `a"`: `a"`, "a\x1b": `a\x1b`, "\"a\x1b\"": `\"a\x1b\"`, "\u202e": `\u202e`, "": "",
	} {
		if got := cell(text); got != want {
			t.Errorf("cell(%q) = %s, want %s", text, got, want)
		}
	}
}

// What no target and no name can be is wrong, before a server is asked.
func TestTextThatIsNone(t *testing.T) {
	t.Setenv(dsnVar, "postgres://u@127.0.0.1:1/d?sslmode=disable")
	for _, args := range [][]string{
		{"audit", "--target", "\xff"}, {"audit", "--owner", "\xff"}, {"audit", "--at", "1h", "--owner", "\xff"}, {"ls", "--target", "\xff"},
		{"kill", "\xff"}, {"kill", "t", "--by", "\xff"}, {"key", "\xff"}, {"run", "\xff", "--", "true"}, {"run", "--owner", "\xff", "t", "--", "true"},
	} {
		if code, _, stderr := runHere(args...); code != exitUsage {
			t.Errorf("%q: exits with %d, want %d: %s", args, code, exitUsage, stderr)
		}
	}
}
