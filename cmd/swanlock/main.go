// Command swanlock runs a command while it holds a distributed lock, which is
// an advisory lock of a PostgreSQL server. "swanlock --help" tells the rest.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
)

// Exit codes, besides those of the command that run runs. They are sysexits(3)'s
// where it has one, so that they rarely meet a command's own.
const (
	exitFailed      = 1   // a demo claim did not hold, or something else failed
	exitHeld        = 1   // the lock is held elsewhere; -E changes it, as in flock(1)
	exitUsage       = 64  // EX_USAGE
	exitUnavailable = 69  // EX_UNAVAILABLE: the server is not there or refuses
	exitLost        = 75  // EX_TEMPFAIL: the lock was lost while the command ran
	exitConfig      = 78  // EX_CONFIG: no server is named, or it is not migrated
	exitDone        = 79  // the command succeeded within --once-every; sysexits ends at 78
	exitCannotRun   = 126 // as shells do
	exitNotFound    = 127 // as shells do
	exitSignal      = 128 // plus the signal's number, as shells do
)

func main() {
	// Commands are started by this thread, which lasts: they die with it, not
	// just with the process (PR_SET_PDEATHSIG).
	runtime.LockOSThread()
	os.Exit(run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// streams are the three that a command has.
type streams struct {
	in       io.Reader
	out, err io.Writer
}

// A failure ends swanlock with a code. A nil err has nothing to say.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return fmt.Sprint(f.err) }
func (f *failure) Unwrap() error { return f.err }

func failf(code int, format string, args ...any) error {
	return &failure{code, fmt.Errorf(format, args...)}
}

// plain is the text of an error of swanlock.NewOptions, which begins with our
// name.
func plain(err error) string { return strings.TrimPrefix(err.Error(), "swanlock: ") }

// A command is one of swanlock's subcommands.
type command struct {
	name string
	help string
	run  func(ctx context.Context, s streams, args []string) error
}

func commands() []command {
	return []command{
		{"run", runHelp, cmdRun},
		{"key", keyHelp, cmdKey},
		{"ls", lsHelp, cmdLs},
		{"audit", auditHelp, cmdAudit},
		{"kill", killHelp, cmdKill},
		{"doctor", doctorHelp, cmdDoctor},
		{"migrate", migrateHelp, cmdMigrate},
		{"serve", serveHelp, cmdServe},
		{"dev", devHelp, cmdDev},
		{"demo", demoHelp, cmdDemo},
		{"verify", verifyHelp, cmdVerify},
		{"completion", completionHelp, cmdCompletion},
		{"version", versionHelp, cmdVersion},
		{"help", helpHelp, cmdHelp},
		{demoHolderName, "", cmdDemoHolder},
		{verifyWorkerName, "", cmdVerifyWorker},
		{supervisorName, "", cmdSupervise},
	}
}

// run is main, for tests too. Its result is the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	err := dispatch(ctx, streams{stdin, stdout, stderr}, args)
	if err == nil {
		return 0
	}
	code := exitFailed
	if f, ok := errors.AsType[*failure](err); ok {
		code, err = f.code, f.err
	}
	if err != nil {
		complain(stderr, err)
	}
	return code
}

// complain says err in one line, which begins with our name. What pglock and
// others say begins with theirs, which a user need not know.
func complain(w io.Writer, err error) {
	text := oneLine(err.Error())
	for _, name := range []string{"pglock: ", "filelock: ", "pgserver: ", "pginspect: "} {
		text = strings.TrimPrefix(strings.ReplaceAll(text, ": "+name, ": "), name)
	}
	fmt.Fprintln(w, "swanlock: "+text)
}

func dispatch(ctx context.Context, s streams, args []string) error {
	if len(args) == 0 {
		return failf(exitUsage, "a command is missing: swanlock --help lists them")
	}
	name, args := args[0], args[1:]
	switch name {
	case "-h", "-help", "--help":
		name = "help"
	case "-version", "--version":
		name = "version"
	}
	for _, c := range commands() {
		if c.name == name {
			err := c.run(ctx, s, args)
			if errors.Is(err, flag.ErrHelp) {
				return print(s.out, c.help)
			}
			return err
		}
	}
	return failf(exitUsage, "%s is not a command: swanlock --help lists them", quote(name))
}

func cmdHelp(_ context.Context, s streams, args []string) error {
	args, err := parse(newFlags("help"), args, 0, -1)
	if err != nil {
		return err
	}
	if len(args) == 0 {
		return print(s.out, mainHelp)
	}
	for _, c := range commands() {
		if c.name == args[0] && c.help != "" {
			return print(s.out, c.help)
		}
	}
	return failf(exitUsage, "help: there is none about %s", quote(args[0]))
}

func cmdVersion(_ context.Context, s streams, args []string) error {
	if _, err := parse(newFlags("version"), args, 0, 0); err != nil {
		return err
	}
	version := "(unknown)"
	if b, ok := debug.ReadBuildInfo(); ok {
		version = b.Main.Version
	}
	return print(s.out, "swanlock "+version+"\n")
}

// print writes what was asked for; a full disk is an error like any other.
func print(w io.Writer, text string) error {
	_, err := io.WriteString(w, text)
	return err
}

// newFlags is a flag set that prints nothing itself.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet(name, flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	return fs
}

// parse reads the flags and returns the arguments, of which there must be from
// min to max (-1: any number).
func parse(fs *flag.FlagSet, args []string, min, max int) ([]string, error) {
	err := fs.Parse(args)
	blank := empty(fs)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return nil, err
	case err != nil:
		return nil, failf(exitUsage, "%s: %s (see swanlock %[1]s --help)", fs.Name(), err)
	case blank != "":
		// An empty variable in a script would ask for all targets, or for the default.
		return nil, failf(exitUsage, "%s: --%s is empty (see swanlock %[1]s --help)", fs.Name(), blank)
	case fs.NArg() < min:
		return nil, failf(exitUsage, "%s: an argument is missing (see swanlock %[1]s --help)", fs.Name())
	case max >= 0 && fs.NArg() > max:
		return nil, failf(exitUsage, "%s: %s is one argument too many (see swanlock %[1]s --help)", fs.Name(), quote(fs.Arg(max)))
	}
	return fs.Args(), nil
}

// empty returns the name of a text flag that was given without a value. (A function
// that parses a flag looks itself; its String is always empty.)
func empty(fs *flag.FlagSet) (name string) {
	fs.Visit(func(f *flag.Flag) {
		if text, ok := f.Value.(flag.Getter); ok && text.Get() == "" {
			name = f.Name
		}
	})
	return name
}

// parseMixed is parse for a command whose flags may follow its arguments.
func parseMixed(fs *flag.FlagSet, args []string, min, max int) (found []string, err error) {
	for {
		if _, err := parse(fs, args, 0, -1); err != nil {
			return nil, err
		}
		rest := fs.Args()
		if used := len(args) - len(rest); len(rest) == 0 || used > 0 && args[used-1] == "--" {
			found = append(found, rest...)
			break
		}
		found, args = append(found, rest[0]), rest[1:]
	}
	return parse(fs, append([]string{"--"}, found...), min, max)
}
