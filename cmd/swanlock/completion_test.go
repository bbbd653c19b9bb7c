package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

func TestBashCompletion(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip(err)
	}
	_, script, _ := runHere("completion", "bash")
	for _, tt := range []struct {
		line string // the last word is being completed
		want []string
	}{
		{"swanlock r", []string{"run"}},
		{"swanlock ", []string{"run", "key", "ls", "audit", "kill", "doctor", "migrate", "serve", "dev", "demo", "verify", "completion", "version", "help", "--help", "--version"}},
		{"swanlock migrate ", []string{"up", "down", "status", "print", "--help"}},
		{"swanlock migrate s", []string{"status"}},
		{"swanlock completion z", []string{"zsh"}},
		{"swanlock help s", []string{"serve"}},
		{"swanlock serve --", []string{"--listen", "--token-file", "--host", "--help"}},
		{"swanlock serve --listen 1", nil},
		{"swanlock serve --token-file t", nil}, // a file name
		{"swanlock help k", []string{"key", "kill"}},
		{"swanlock ls --w", []string{"--watch"}},
		{"swanlock ls --target ", nil},
		{"swanlock audit p", []string{"prune"}},
		{"swanlock audit --at ", nil},
		{"swanlock audit prune --", []string{"--older-than", "--help"}},
		{"swanlock kill --y", []string{"--yes"}},
		{"swanlock doctor --j", []string{"--json"}},
		{"swanlock run --t", []string{"--timeout", "--ttl"}},
		{"swanlock run --ttl 5s --co", []string{"--conflict-exit-code"}},
		{"swanlock verify --d", []string{"--dsn", "--duration"}},
		{"swanlock verify --faults c", []string{"cut", "cancel"}},
		{"swanlock run --ttl ", nil},
		{"swanlock run targ", nil}, // a file name
		{"swanlock run t -- comple", []string{"complete"}},
		{"swanlock run --ttl 5s t -- comple", []string{"complete"}},
		{"swanlock run t -- cat --t", nil}, // the command's own
	} {
		words := strings.Split(tt.line, " ")
		c := exec.Command(bash, "--norc", "-c", `source /dev/stdin; COMP_WORDS=("$@"); COMP_CWORD=$(($#-1)); _swanlock; printf '%s\n' "${COMPREPLY[@]}"`)
		c.Args = append(append(c.Args, "bash"), words...)
		c.Stdin = strings.NewReader(script)
		out, err := c.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", tt.line, err, out)
		}
		got := strings.Fields(string(out))
		slices.Sort(got)
		got = slices.Compact(got) // commands may be there twice
		slices.Sort(tt.want)
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q: completions %q, want %q", tt.line, got, tt.want)
		}
	}
	c := exec.Command(bash, "--norc", "-c", "source /dev/stdin; complete -p swanlock")
	c.Stdin = strings.NewReader(script)
	if out, err := c.CombinedOutput(); err != nil || string(out) != "complete -o default -F _swanlock swanlock\n" {
		t.Errorf("complete -p: %v, %s", err, out)
	}
}

// The scripts of the other shells at least parse, where the shells are there.
func TestOtherCompletions(t *testing.T) {
	for _, shell := range []string{"zsh", "fish"} {
		code, script, _ := runHere("completion", shell)
		if code != 0 {
			t.Errorf("completion %s: %d", shell, code)
		}
		for _, c := range commands() {
			if c.name != demoHolderName && c.name != verifyWorkerName && c.name != supervisorName && !strings.Contains(script, c.name) {
				t.Errorf("%s does not know %s", shell, c.name)
			}
		}
		path, err := exec.LookPath(shell)
		if err != nil {
			t.Logf("not parsed: %v", err)
			continue
		}
		c := exec.Command(path, "-n", "/dev/stdin")
		c.Stdin = strings.NewReader(script)
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("%s -n: %v\n%s", shell, err, out)
		}
	}
}
