package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

const lsHelp = `Usage: swanlock ls [--target GLOB] [--json] [--watch]

Lists every advisory lock of the server: who holds it, since when, and below each
holder those that wait for it, in their order.

  swanlock ls                                what is held now
  swanlock ls --target '/lake/*' --watch     refreshed every second, until Ctrl-C
  swanlock ls --json | jq '.locks[] | select(.held_seconds > 3600)'

Flags:
  --target GLOB   only those targets: * is any text, ? any character. One without
                  these is also found by its key, without an audit
  --json          everything that is known, as JSON; with --watch a line for each look
  --watch         look again and again
  --interval D    how often (default 1s)

TARGET, OWNER, FENCE, HELD, TTL LEFT and REFRESHED (how long ago) are those that the
holder wrote into the audit (swanlock run --audit, pglock.WithAudit). Without it
TARGET is the name under which the audit last saw the key, or "key N"; and HELD is
known as far as --watch saw it. "pair A, B" is a lock of some other program.
A time of waiting with a + is what is known of it: it may be longer. --watch knows
more, since it remembers who was there.
In a narrow terminal columns are left out; in a pipe, and with --json, none is.

Exit codes: 0; 64 the arguments are wrong; 69 the server cannot be reached; 78 no
server is configured.
`

func cmdLs(ctx context.Context, s streams, args []string) error {
	flags := newFlags("ls")
	target := flags.String("target", "", "")
	asJSON := flags.Bool("json", false, "")
	watch := flags.Bool("watch", false, "")
	interval := flags.Duration("interval", time.Second, "")
	if _, err := parse(flags, args, 0, 0); err != nil {
		return err
	}
	if *interval < 100*time.Millisecond {
		return failf(exitUsage, "ls: --interval %v is under 100ms, which the server would feel (see swanlock ls --help)", *interval)
	}
	if err := checkTexts("ls", *target); err != nil {
		return err
	}
	return onServer(ctx, "ls", func(ctx context.Context, on *sql.DB) error {
		l := lister{target: *target, asJSON: *asJSON}
		if !*watch {
			text, err := l.look(ctx, on, s.out, 0)
			if err != nil {
				return err
			}
			return print(s.out, text)
		}
		return l.watch(ctx, on, s, *interval)
	})
}

// A lister shows the locks.
type lister struct {
	target  string
	asJSON  bool
	watcher pginspect.Watcher
}

// look returns one list. If lines is not 0, it is one of many, and has that many
// lines at most.
func (l *lister) look(ctx context.Context, on *sql.DB, out io.Writer, lines int) (string, error) {
	look := l.watcher.Look
	if lines == 0 {
		look = pginspect.Look // one look knows no beginnings
	}
	locks, waiters, err := look(ctx, on)
	if err != nil {
		return "", err
	}
	locks = slices.DeleteFunc(locks, func(k pginspect.Lock) bool { return !k.Matches(l.target) })
	waiters = slices.DeleteFunc(waiters, func(w pginspect.Waiter) bool { return !w.Matches(l.target) })
	if l.asJSON {
		return l.json(locks, waiters)
	}
	width, _, _ := screenOf(out)
	c := coloursFor(out)
	text := lockTable(locks, waiters, c).text(width, c)
	if len(locks)+len(waiters) == 0 {
		text = "no advisory lock is held"
		if l.target != "" {
			text += " on " + quote(l.target)
		}
		text += "\n"
	}
	if parts := strings.SplitAfter(text, "\n"); lines > 0 && len(parts) > lines {
		text = strings.Join(parts[:lines-1], "") + fmt.Sprintf("and %d lines more\n", len(parts)-lines)
	}
	return text, nil
}

func (l *lister) json(locks []pginspect.Lock, waiters []pginspect.Waiter) (string, error) {
	text, err := json.Marshal(map[string]any{"locks": append([]pginspect.Lock{}, locks...), "waiters": append([]pginspect.Waiter{}, waiters...)})
	return string(text) + "\n", err
}

// watch shows the list again and again: in a terminal in its place, on a screen
// of its own, and elsewhere one list after the other.
func (l *lister) watch(ctx context.Context, on *sql.DB, s streams, interval time.Duration) (err error) {
	out := s.out
	_, _, terminal := screenOf(out)
	terminal = terminal && !l.asJSON
	if terminal {
		if err := print(out, "\x1b[?1049h\x1b[?25l"); err != nil {
			return err
		}
		defer print(out, "\x1b[?25h\x1b[?1049l")
	}
	seen := false
	for {
		_, lines, _ := screenOf(out)
		if !terminal {
			lines = 1 << 30
		}
		text, err := l.look(ctx, on, out, max(lines-2, 3))
		switch {
		case ctx.Err() != nil:
			return nil // Ctrl-C is how to end it
		case err != nil && !seen:
			return err
		case err != nil && terminal:
			text = "swanlock: " + strings.TrimPrefix(oneLine(err.Error()), "pginspect: ") + "; trying again\n"
		case err != nil:
			complain(s.err, fmt.Errorf("ls: %w; trying again", err))
		}
		seen = true
		if terminal {
			text = "\x1b[H" + strings.ReplaceAll(time.Now().Format(time.TimeOnly)+"  Ctrl-C ends\n"+text, "\n", "\x1b[K\n") + "\x1b[J"
		} else if !l.asJSON && err == nil {
			text += "\n"
		}
		if err := print(out, text); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}

// lockTable has a row for each lock, and below the last holder of a key its
// waiters.
func lockTable(locks []pginspect.Lock, waiters []pginspect.Waiter, c colours) *table {
	t := &table{columns: []column{
		{"TARGET", false, 16, 0}, {"OWNER", false, 10, 1}, {"MODE", false, 0, 5}, {"FENCE", true, 0, 4}, {"HELD", true, 0, 0}, {"TTL LEFT", true, 0, 3}, {"REFRESHED", true, 0, 8},
		{"PID", true, 0, 0}, {"STATE", false, 6, 2}, {"APPLICATION", false, 8, 6}, {"CLIENT", false, 0, 7}, {"DATABASE", false, 8, 9}, {"KEY", true, 0, 10},
	}}
	several := slices.ContainsFunc(locks, func(l pginspect.Lock) bool { return !l.Here }) || slices.ContainsFunc(waiters, func(w pginspect.Waiter) bool { return !w.Here })
	database := func(name string) string {
		if !several {
			return ""
		}
		return cell(name)
	}
	wait := func(w pginspect.Waiter) {
		mark := "+"
		if !w.InLine {
			mark = ""
		}
		waited := "?"
		if !w.WaitingSince.IsZero() {
			waited = brief(w.WaitingFor()) + mark
		}
		t.add(c.yellow, fmt.Sprintf("  %d. waits", w.Place), "", "", "", waited, "", "", strconv.Itoa(w.PID), cell(w.State), cell(w.Application), cell(w.Client), database(w.Database), "")
	}
	shown := map[pginspect.Waiter]bool{}
	for i, l := range locks {
		t.add("", lockCells(l, database(l.Database))...)
		if i+1 < len(locks) && locks[i+1].Key == l.Key && locks[i+1].Database == l.Database && (locks[i+1].Kind == pginspect.Foreign) == (l.Kind == pginspect.Foreign) {
			continue // another holder of the same key
		}
		for _, w := range l.Waiters {
			wait(w)
			shown[w] = true
		}
	}
	for _, w := range waiters {
		if !shown[w] {
			if w.Place == 1 {
				t.add("", cell(w.Name()), "", "free", "", "", "", "", "", "", "", "", database(w.Database), "")
			}
			wait(w)
		}
	}
	return t
}

func lockCells(l pginspect.Lock, database string) []string {
	held, left, refreshed, fence, mode, key := "", "", "", "", "exclusive", strconv.FormatInt(l.Key, 10)
	if !l.HeldSince.IsZero() {
		d, exact := l.HeldFor()
		if held = brief(d); !exact {
			held += "+"
		}
	}
	if d, ok := l.TTLLeft(); ok {
		left = brief(d)
	} else if l.Kind == pginspect.Audited {
		left = "no TTL"
	}
	if !l.RefreshedAt.IsZero() {
		refreshed = brief(max(0, l.SeenAt.Sub(l.RefreshedAt)))
	}
	if l.Fence != 0 {
		fence = strconv.FormatUint(l.Fence, 10)
	}
	if l.Shared {
		mode = "shared"
	}
	if l.Kind == pginspect.Foreign {
		key = ""
	}
	return []string{cell(l.Name()), cell(l.Owner), mode, fence, held, left, refreshed, strconv.Itoa(l.PID), cell(l.State), cell(l.Application), cell(l.Client), database, key}
}
