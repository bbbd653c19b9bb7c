package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// mutantVar has the number of the mutant that a test's process is to be.
const mutantVar = "SWANLOCK_MUTANT"

// A runner builds the tests of the sources, and runs them.
type runner struct {
	root, dir string // the module, and a folder for what is built
	packages  string
	sources   []*source
	workers   int
	out       io.Writer

	mu    sync.Mutex
	sound map[string]bool // the tests that were seen to pass on no mutant
}

// parallel calls f for each of the items, on some goroutines.
func parallel[T any](workers int, items []T, f func(T)) {
	var wg sync.WaitGroup
	next := make(chan T)
	for range workers {
		wg.Go(func() {
			for item := range next {
				f(item)
			}
		})
	}
	for _, item := range items {
		next <- item
	}
	close(next)
	wg.Wait()
}

// build builds the test of each package and returns all tests by their names,
// pglock.TestClose.
func (r *runner) build(args ...string) (tests []string, err error) {
	for _, s := range r.sources {
		if len(s.TestGoFiles)+len(s.XTestGoFiles) == 0 {
			continue
		}
		pkg := s.Dir[len(r.root)+1:]
		c := exec.Command("go", append(append([]string{"test", "-c", "-vet=off", "-o", r.exe(pkg)}, args...), "./"+pkg)...)
		c.Dir = r.root
		if out, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("go test -c ./%s: %w\n%s", pkg, err, out)
		}
		c = exec.Command(r.exe(pkg), "-test.list", "^Test")
		c.Dir = s.Dir
		out, err := c.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", pkg, err)
		}
		for _, name := range strings.Fields(string(out)) {
			if strings.HasPrefix(name, "Test") {
				tests = append(tests, pkg+"."+name)
			}
		}
	}
	return tests, nil
}

func (r *runner) exe(pkg string) string {
	return filepath.Join(r.dir, strings.ReplaceAll(pkg, "/", "-")+".test")
}

// overlay writes the texts to a folder, and returns the file that tells go
// build to take them for those of the module.
func (r *runner) overlay(texts map[string][]byte) (string, error) {
	replace := make(map[string]string)
	for path, text := range texts {
		replace[path] = filepath.Join(r.dir, fmt.Sprintf("%d.go", len(replace)))
		if err := os.WriteFile(replace[path], text, 0o644); err != nil {
			return "", err
		}
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(r.dir, "overlay.json")
	return file, os.WriteFile(file, b, 0o644)
}

var (
	failed = regexp.MustCompile(`(?m)^--- FAIL: (\S+)`)
	hung   = regexp.MustCompile(`panic: test timed out after \S+\s+running tests:\s+(\w+)`)
	leaked = regexp.MustCompile(`(?m)^goleak: `)
	crash  = regexp.MustCompile(`(?m)^(panic|fatal error): .*`)
)

// tests runs the tests on a mutant, and returns what has killed it: "" nothing.
func (r *runner) tests(number int, tests []string, limit float64, drivers string, args ...string) (killer, output string) {
	byPackage := make(map[string][]string)
	for _, t := range tests {
		pkg, name, _ := strings.Cut(t, ".")
		byPackage[pkg] = append(byPackage[pkg], name)
	}
	for pkg, names := range byPackage {
		timeout := time.Duration(limit * float64(time.Second)).Round(time.Second)
		ctx, cancel := context.WithTimeout(context.Background(), timeout+20*time.Second)
		c := exec.CommandContext(ctx, r.exe(pkg), append([]string{"-test.short", "-test.failfast",
			"-test.timeout=" + timeout.String(), "-test.run=^(" + strings.Join(names, "|") + ")$"}, args...)...)
		c.Dir, c.WaitDelay = filepath.Join(r.root, pkg), 5*time.Second
		c.Env = append(os.Environ(), fmt.Sprintf("%s=%d", mutantVar, number))
		if drivers != "" {
			c.Env = append(c.Env, "SWANLOCK_DRIVERS="+drivers)
		}
		b, err := c.CombinedOutput()
		cancel()
		output = string(b)
		if err == nil {
			continue
		}
		if name := failed.FindStringSubmatch(output); name != nil {
			return pkg + "." + name[1], output
		}
		if name := hung.FindStringSubmatch(output); name != nil {
			return pkg + "." + name[1] + ", which hangs", output
		}
		if leaked.MatchString(output) {
			return "goleak", output
		}
		if line := crash.FindString(output); line != "" {
			return line, output
		}
		return err.Error(), output
	}
	return "", output
}

// tail returns the last lines of what a test has written.
func tail(output string) string {
	lines := strings.SplitAfter(output, "\n")
	return strings.Join(lines[max(len(lines)-20, 0):], "")
}

// budgets are the lengths, in seconds, of the lists of tests that are run one
// after the other: most mutants die in the first.
var budgets = []float64{2, 10, 40, 1e9}

// kill runs the tests that cover m, the quickest first and on one driver, and
// returns what has killed it. It is content with the first few lists if quick.
func (r *runner) kill(c *coverage, m *mutant, quick bool) (killer string, ran int) {
	tests := c.testsFor(m)
	drivers := []string{"pgx", "postgres"}
	if chosen := os.Getenv("SWANLOCK_DRIVERS"); chosen != "" {
		drivers = []string{chosen}
	}
	for _, driver := range drivers {
		left := tests
		for i, budget := range budgets {
			if quick && i > 1 {
				return "", ran
			}
			n := 0
			for n < len(left) && (i > 0 && n == 0 || c.seconds(left[:n+1]) <= budget) {
				n++
			}
			list := left[:n]
			left = left[n:]
			for len(list) > 0 {
				ran += len(list)
				killer, _ := r.tests(m.number, list, 8+3*c.seconds(list), driver)
				if killer == "" {
					break
				}
				name, _, _ := strings.Cut(killer, ",")
				if !slices.Contains(list, name) || r.isSound(c, name, driver) {
					return killer, ran
				}
				list = slices.DeleteFunc(slices.Clone(list), func(t string) bool { return t == name })
			}
		}
	}
	return "", ran
}

// isSound reports whether the test passes if nothing is changed. If it does
// not, a mutant's death by it says nothing.
func (r *runner) isSound(c *coverage, test, driver string) bool {
	r.mu.Lock()
	sound, known := r.sound[test+driver]
	r.mu.Unlock()
	if !known {
		killer, output := r.tests(0, []string{test}, 30+5*c.Tests[test].Seconds, driver)
		if sound = killer == ""; !sound {
			fmt.Fprintf(r.out, "%s fails as it is, and kills nothing: %s", test, tail(output))
		}
		r.mu.Lock()
		r.sound[test+driver] = sound
		r.mu.Unlock()
	}
	return sound
}
