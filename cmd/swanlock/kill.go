package main

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"

	"github.com/swanlake-io/swanlock/pginspect"
)

const killHelp = `Usage: swanlock kill TARGET|PID [--yes]

Ends the PostgreSQL session that holds TARGET, or whose process is PID, after showing
what it is and asking. With the session end all the locks that it holds, and its
places in line. The holder learns of it as of any loss; the next in line gets the
lock. If there is an audit, it says "killed" and by whom.

  swanlock kill nightly
  swanlock kill 4711 --yes

Look first whether it is safe: swanlock ls. A holder that is killed may still be at
work; swanlock run stops its command, and a fence keeps late writes out.

Flags:
  --yes       do not ask
  --by NAME   who does it, for the audit (default: user@host)
  --target    the argument is a target, though it looks like a PID

A TARGET that several readers hold is freed of all of them. It needs a superuser, a
member of pg_signal_backend and pg_read_all_stats, or the holders' own role.

Exit codes: 0 the session has ended; 1 nobody holds that, or the answer was no; 64
the arguments are wrong; 69 the server cannot be reached or refuses; 78 no server is
configured.
`

func cmdKill(ctx context.Context, s streams, args []string) error {
	flags := newFlags("kill")
	yes := flags.Bool("yes", false, "")
	by := flags.String("by", whoAmI(), "")
	isTarget := flags.Bool("target", false, "")
	args, err := parseMixed(flags, args, 1, 1)
	if err != nil {
		return err
	}
	what := args[0]
	pid := 0
	if n, err := strconv.ParseUint(what, 10, 31); err == nil && !*isTarget {
		pid = int(n) // A number that no process has is a target.
	}
	if what == "" || *by == "" {
		return failf(exitUsage, "kill: an empty target or name (see swanlock kill --help)")
	}
	if err := checkTexts("kill", what, *by); err != nil {
		return err
	}
	o := killOptions{what, pid, *by, *yes}
	return onServer(ctx, "kill", func(ctx context.Context, on *sql.DB) error {
		locks, waiters, err := pginspect.Look(ctx, on)
		if err != nil {
			return err
		}
		victims := o.sessions(locks, waiters)
		if len(victims) == 0 && pid != 0 {
			return failf(exitFailed, "kill: no session %d has an advisory lock or waits for one (if that is a target: --target)", pid)
		}
		if len(victims) == 0 {
			return failf(exitFailed, "kill: nobody holds %s in this database (swanlock ls shows what is held)", quote(what))
		}
		left := 0
		for _, v := range victims {
			switch err := o.kill(ctx, s, on, v, locks, waiters); {
			case errors.Is(err, pginspect.ErrNoSession) && len(victims) > 1:
				left++
				if err := print(s.out, fmt.Sprintf("session %d has ended by itself, or has no such lock any more\n", v.PID)); err != nil {
					return err
				}
			case errors.Is(err, pginspect.ErrNoSession):
				return failf(exitFailed, "kill: session %d has ended by itself, or has no such lock any more", v.PID)
			case err != nil:
				return err
			}
		}
		if left == len(victims) {
			return failf(exitFailed, "kill: nobody holds %s any more", quote(what))
		}
		return nil
	})
}

// killOptions is what the arguments of kill say.
type killOptions struct {
	target string
	pid    int // instead of the target, if it is not 0
	by     string
	yes    bool
}

// sessions are those with that process id, or that hold the target.
func (o killOptions) sessions(locks []pginspect.Lock, waiters []pginspect.Waiter) (found []pginspect.Session) {
	add := func(s pginspect.Session) {
		if !slices.Contains(found, s) {
			found = append(found, s)
		}
	}
	for _, l := range locks {
		if o.pid != 0 && l.PID == o.pid || o.pid == 0 && l.Here && l.Matches(pginspect.Literal(o.target)) {
			add(l.Session)
		}
	}
	for _, w := range waiters {
		if o.pid != 0 && w.PID == o.pid {
			add(w.Session)
		}
	}
	return found
}

// kill shows what a session has, asks, and ends it, unless it is none of those that
// were meant any more: an answer takes its time, and a session can be a pool's.
func (o killOptions) kill(ctx context.Context, s streams, on *sql.DB, v pginspect.Session, locks []pginspect.Lock, waiters []pginspect.Waiter) error {
	var its []pginspect.Lock
	for _, l := range locks {
		if l.Session == v {
			its = append(its, l)
		}
	}
	waits := 0
	var alone []pginspect.Waiter
	for _, w := range waiters {
		if w.Session == v {
			waits++
			if len(its) == 0 {
				alone = append(alone, w)
			}
		}
	}
	width, _, _ := screenOf(s.out)
	c := coloursFor(s.out)
	if err := print(s.out, lockTable(its, alone, c).text(width, c)); err != nil {
		return err
	}
	if !o.yes {
		ok, err := ask(ctx, s, fmt.Sprintf("End session %d, with %s and %s in line?", v.PID, plural(len(its), "lock"), plural(waits, "place")))
		if err != nil {
			return err
		}
		if !ok {
			return failf(exitFailed, "kill: session %d was left alone", v.PID)
		}
	}
	locks, waiters, err := pginspect.Look(ctx, on)
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(o.sessions(locks, waiters), func(now pginspect.Session) bool { return now.PID == v.PID && now.Started.Equal(v.Started) }) {
		return pginspect.ErrNoSession
	}
	killed, err := pginspect.Kill(ctx, on, v, o.by)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("ended session %d", v.PID)
	if killed.Rows > 0 {
		text += fmt.Sprintf("; the audit says killed by %s in %s", cell(o.by), plural(killed.Rows, "row"))
	}
	return print(s.out, text+"\n")
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ask asks a person, who must be there. Ctrl-C is a no.
func ask(ctx context.Context, s streams, question string) (bool, error) {
	if f, ok := s.in.(*os.File); !ok || !isTyped(f) {
		return false, failf(exitUsage, "kill: nobody can be asked here: give --yes")
	}
	if err := print(s.out, question+" [y/N] "); err != nil {
		return false, err
	}
	answer := make(chan string, 1)
	go func() { // it lasts until there is an answer, or the process ends
		line, _ := bufio.NewReader(s.in).ReadString('\n')
		answer <- strings.ToLower(strings.TrimSpace(line))
	}()
	select {
	case <-ctx.Done():
		return false, context.Cause(ctx)
	case a := <-answer:
		return a == "y" || a == "yes", nil
	}
}

func isTyped(f *os.File) bool {
	_, _, ok := screenOf(f)
	return ok
}

// whoAmI is the name of the user and of this host.
func whoAmI() string {
	name, host := "unknown", "unknown"
	if u, err := user.Current(); err == nil && u.Username != "" {
		name = u.Username
	}
	if h, err := os.Hostname(); err == nil && h != "" {
		host = h
	}
	return name + "@" + host
}
