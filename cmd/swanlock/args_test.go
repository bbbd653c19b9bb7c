package main

import (
	"bytes"
	"context"
	"io"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

func TestParseRun(t *testing.T) {
	with := func(f func(*runOptions)) runOptions {
		o := runOptions{ttl: 30 * time.Second, grace: 10 * time.Second, heldCode: 1, target: "t", argv: []string{"cmd"}}
		f(&o)
		return o
	}
	for _, tt := range []struct {
		args string
		want runOptions
	}{
		{"t -- cmd", with(func(*runOptions) {})},
		{"t -- cmd -x --ttl 1s -- t", with(func(o *runOptions) { o.argv = strings.Fields("cmd -x --ttl 1s -- t") })},
		{"--ttl 5s t -- cmd", with(func(o *runOptions) { o.ttl = 5 * time.Second })},
		{"-ttl=1m30s t -- cmd", with(func(o *runOptions) { o.ttl = 90 * time.Second })},
		{"--ttl 0 t -- cmd", with(func(o *runOptions) { o.ttl = 0 })},
		{"--wait --fence --audit --owner me t -- cmd", with(func(o *runOptions) { o.wait, o.fence, o.audit, o.owner = true, true, true, "me" })},
		{"--timeout 5m --shared t -- cmd", with(func(o *runOptions) { o.timeout, o.shared = 5*time.Minute, true })},
		{"--wait --poll --detach --quiet t -- cmd", with(func(o *runOptions) { o.wait, o.poll, o.detach, o.quiet = true, true, true, true })},
		{"--grace 0s -E 0 t -- cmd", with(func(o *runOptions) { o.grace, o.heldCode = 0, 0 })},
		{"--conflict-exit-code 255 t -- cmd", with(func(o *runOptions) { o.heldCode = 255 })},
		{"--file --dir d t -- cmd", with(func(o *runOptions) { o.file, o.dir = true, "d" })},
		{"-- -t -- cmd", with(func(o *runOptions) { o.target = "-t" })},
	} {
		got, err := parseRun(strings.Fields(tt.args))
		if err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("parseRun(%s) = %+v, %v\nwant %+v", tt.args, got, err, tt.want)
		}
	}
}

// What is wrong is said in one line, with exit code 64, before anything is run.
func TestBadArguments(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"", "a command is missing"},
		{"walk", `"walk" is not a command`},
		{"run", "run: an argument is missing"},
		{"run t", `after the target "t" come -- and the command`},
		{"run t cmd", `after the target "t" come -- and the command`},
		{"run t --ttl 5s -- cmd", "flags go before it"},
		{"run t --", "the command after -- is missing"},
		{"run -- cmd", `after the target "cmd"`},
		{"run --nosuch t -- cmd", "run: flag provided but not defined: -nosuch"},
		{"run --ttl", "flag needs an argument"},
		{"run --ttl 5 t -- cmd", `invalid value "5" for flag -ttl`},
		{"run --ttl -5s t -- cmd", "--ttl -5s is negative: 0 is none"},
		{"run --ttl 1ms t -- cmd", "--ttl 1ms is under 100ms"},
		{"run --ttl 900h t -- cmd", "more than the server can keep"},
		{"run --timeout -1s t -- cmd", "--timeout -1s is negative"},
		{"run --at-least -1s t -- cmd", "--at-least -1s is negative"},
		{"run --grace -1s t -- cmd", "--grace -1s is negative"},
		{"run --wait --timeout 1s t -- cmd", "give one of them"},
		{"run --poll t -- cmd", "--poll is a way to wait"},
		{"run --dir d t -- cmd", "--dir is for --file"},
		{"run --file --audit t -- cmd", "--file has none"},
		{"run --file --once-every 1h t -- cmd", "--file has none"},
		{"run --file --wait --poll t -- cmd", "--file has none"},
		{"supervise", "an argument is missing"},
		{"supervise sh sh", "is a part of swanlock run"},
		{"run --shared --fence t -- cmd", "leave out --shared or --fence"},
		{"run --file --ttl 11m /t -- cmd", "--ttl 11m0s is over 10m0s"},
		{"run -E 256 t -- cmd", "-E 256 is not an exit code"},
		{"run -E -1 t -- cmd", "-E -1 is not an exit code"},
		{"run -E x t -- cmd", `invalid value "x" for flag -E`},
		{"run \xff -- cmd", "not valid UTF-8"},
		{"run --owner \xff t -- cmd", "the owner is not valid UTF-8"},
		{"key", "key: an argument is missing"},
		{"key a b", `key: "b" is one argument too many`},
		{"key \xff", "not valid UTF-8"},
		{"migrate", "migrate: an argument is missing"},
		{"migrate sideways", `migrate: "sideways" is not one of up, down, status and print`},
		{"ls x", `ls: "x" is one argument too many`},
		{"ls --interval 1ms", "--interval 1ms is under 100ms"},
		{"audit x", `"x" is one argument too many`},
		{"audit --at noon", `audit: --at "noon" is no time`},
		{"audit --at 12:00 --since 2h", "--at is one moment"},
		{"audit --since 1h --until 2h", `--since "1h" is not before --until "2h"`},
		{"audit --limit -1", "--limit -1 is negative"},
		{"audit --json --csv", "give --json or --csv"},
		{"ls --target=", "ls: --target is empty"},
		{"audit --json --owner=", "audit: --owner is empty"},
		{"run --file --dir= x -- true", "run: --dir is empty"},
		{"audit prune", "--older-than is missing"},
		{"audit prune --older-than soon", `--older-than "soon" is no duration`},
		{"audit prune --older-than 1d x", `"x" is one argument too many`},
		{"kill", "kill: an argument is missing"},
		{"kill a b", `kill: "b" is one argument too many`},
		{"kill a --nosuch", "flag provided but not defined: -nosuch"},
		{"doctor x", `doctor: "x" is one argument too many`},
		{"dev x", `dev: "x": put -- before a command`},
		{"demo x", `demo: "x" is one argument too many`},
		{"completion tcsh", `completion: there is none for "tcsh"`},
		{"help walk", `there is none about "walk"`},
		{"version 2", `"2" is one argument too many`},
	} {
		code, out, err := runHere(strings.Fields(tt.args)...)
		if code != 64 || out != "" || !strings.HasPrefix(err, "swanlock: ") || strings.Count(err, "\n") != 1 || strings.Contains(err, ": swanlock: ") || !strings.Contains(err, tt.want) {
			t.Errorf("swanlock %q: code %d, stdout %q, stderr %q; want 64 and %q", tt.args, code, out, err, tt.want)
		}
	}
	if code, _, err := runHere("run", "", "--", "true"); code != 64 || !strings.Contains(err, "target is empty") {
		t.Errorf("an empty target: %d, %s", code, err)
	}
	if code, _, err := runHere("run", "a\x00b", "--", "true"); code != 64 || !strings.Contains(err, "NUL") {
		t.Errorf("a NUL in the target: %d, %s", code, err)
	}
}

func TestHelp(t *testing.T) {
	_, all, _ := runHere("--help")
	for _, args := range []string{"help", "-h", "--help"} {
		if code, out, err := runHere(args); code != 0 || out != mainHelp || err != "" {
			t.Errorf("swanlock %s: %d, %q, %q", args, code, out, err)
		}
	}
	for _, c := range commands() {
		if c.name == demoHolderName || c.name == verifyWorkerName || c.name == supervisorName {
			continue
		}
		if !regexp.MustCompile(`(?m)^  ` + c.name + ` `).MatchString(all) {
			t.Errorf("--help does not list %s", c.name)
		}
		for _, args := range [][]string{{c.name, "--help"}, {c.name, "-h"}, {"help", c.name}} {
			code, out, err := runHere(args...)
			if code != 0 || out != c.help || err != "" {
				t.Errorf("swanlock %q: %d, %q, %q", args, code, out, err)
			}
		}
		if !strings.HasPrefix(c.help, "Usage: swanlock "+c.name) {
			t.Errorf("help of %s begins with %.40q", c.name, c.help)
		}
		if !regexp.MustCompile(`(?m)^  (.* )?(<\()?swanlock ` + c.name + `\b`).MatchString(c.help) {
			t.Errorf("help of %s has no example", c.name)
		}
		for line := range strings.Lines(c.help) {
			if len(line) > 90 || strings.TrimRight(line, " \n") != strings.TrimRight(line, "\n") {
				t.Errorf("help of %s: long line, or blanks at its end: %q", c.name, line)
			}
		}
	}
	if code, out, _ := runHere("--version"); code != 0 || !strings.HasPrefix(out, "swanlock ") {
		t.Errorf("--version: %d, %q", code, out)
	}
}

// runFlags are the flags that run takes.
func runFlags(t *testing.T) (names []string) {
	t.Helper()
	got := regexp.MustCompile(`Var\(&o\.\w+, "([\w-]+)"`).FindAllStringSubmatch(read(t, "options.go"), -1)
	for _, m := range got {
		names = append(names, m[1])
	}
	if len(names) < 10 {
		t.Fatalf("found only %q", names)
	}
	return names
}

func TestFlagsAreTold(t *testing.T) {
	for _, name := range runFlags(t) {
		long, fish := "--"+name, "-l "+name
		if len(name) == 1 {
			long, fish = "-"+name, "-s "+name
		}
		for what, text := range map[string]string{"run --help": runHelp, "bash": bashCompletion, "zsh": zshCompletion} {
			if !strings.Contains(text, long) {
				t.Errorf("%s does not tell %s", what, long)
			}
		}
		if !strings.Contains(fishCompletion, fish) {
			t.Errorf("fish does not tell %s", fish)
		}
	}
}

func TestKey(t *testing.T) {
	for target, want := range map[string]string{
		"/ducklake/checkpoint/swanlake": "1097463690975298865\n",
		"a/./b":                         "-1876356050197899535\n",
		strings.Repeat("x", 1<<20):      "",
	} {
		code, out, err := runHere("key", target)
		if code != 0 || err != "" || want != "" && out != want {
			t.Errorf("key %.30q: %d, %q, %q; want %q", target, code, out, err, want)
		}
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, io.ErrShortWrite }

// What could not be written was not done.
func TestFullDisk(t *testing.T) {
	for _, args := range []string{"key t", "migrate print", "completion bash", "version"} {
		var err bytes.Buffer
		if code := run(context.Background(), strings.Fields(args), nil, fullDisk{}, &err); code == 0 {
			t.Errorf("swanlock %s on a full disk exits with 0", args)
		}
	}
}

// FuzzArgs: no arguments panic, and every complaint is one line of text that
// does nothing to a terminal.
func FuzzArgs(f *testing.F) {
	for _, s := range []string{
		"run\n--ttl\n1s\nt\n--\ntrue", "key\nt", "key\n\x1b[2J", "migrate\nprint", "migrate\n\u202e", "completion\nbash",
		"run\n--\n--\n--", "run\n--ttl=1e9h\nt\n--\nx", "help\nrun", "nosuch\r\ncommand", "run\n-E\n99999999999999999999\nt\n--\nx",
		"run\n--owner\n\xff\nt\n--\nx",
	} {
		f.Add(s)
	}
	harmless := []string{"key", "completion", "help", "version", "-h", "--help", "--version"}
	f.Fuzz(func(t *testing.T, s string) {
		args := strings.Split(s, "\n")
		if args[0] == "run" {
			o, err := parseRun(args[1:])
			if err != nil {
				var said bytes.Buffer
				complain(&said, err)
				if text := strings.TrimSuffix(said.String(), "\n"); len(text) > 2000 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) {
					t.Errorf("parseRun(%q) says %q", args[1:], text)
				}
			}
			if err == nil && (o.target == "" || len(o.argv) == 0 || o.ttl < 0 || o.grace < 0 || o.timeout < 0) {
				t.Errorf("parseRun(%q) = %+v", args[1:], o)
			}
			return
		}
		if slices.ContainsFunc(commands(), func(c command) bool { return c.name == args[0] }) && !slices.Contains(harmless, args[0]) {
			return // it would do something
		}
		code, _, err := runHere(args...)
		if code != 0 && (strings.Count(err, "\n") != 1 || !strings.HasSuffix(err, "\n") || len(err) > 4096) {
			t.Errorf("stderr is not one line: %q", err)
		}
		for _, r := range strings.TrimSuffix(err, "\n") {
			if !unicode.IsPrint(r) {
				t.Errorf("stderr has %U: %q", r, err)
			}
		}
	})
}
