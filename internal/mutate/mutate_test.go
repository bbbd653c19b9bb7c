//go:build mutants

package mutate

import (
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// A mutant is pglock with one text, which its file has exactly once, replaced.
type mutant struct {
	name, file string
	tests      string // that kill it: a pattern for go test -run; on pgx, unless it says postgres
	old, new   string
}

const pglock = "../../pglock"

func mutants() []mutant { return slices.Concat(settling, core, line, pool) }

// mutated is what the file of m becomes.
func (m mutant) mutated() (string, error) {
	b, err := os.ReadFile(filepath.Join(pglock, m.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(b), m.old); n != 1 {
		return "", fmt.Errorf("%s has the text %d times, not once: %q", m.file, n, m.old)
	}
	return strings.Replace(string(b), m.old, m.new, 1), nil
}

// TestMutantsApply: the list fits the code, so that each of them really is one.
func TestMutantsApply(t *testing.T) {
	tests := testNames(t)
	names := make(map[string]bool)
	for _, m := range mutants() {
		if names[m.name] {
			t.Errorf("%s: the name is there twice", m.name)
		}
		names[m.name] = true
		text, err := m.mutated()
		if err != nil {
			t.Errorf("%s: %v", m.name, err)
		} else if _, err := parser.ParseFile(token.NewFileSet(), m.file, text, 0); err != nil {
			t.Errorf("%s: %v", m.name, err)
		}
		for test := range strings.SplitSeq(m.tests, "|") {
			top, _, _ := strings.Cut(test, "/")
			if !tests[top] {
				t.Errorf("%s: pglock has no test %q", m.name, top)
			}
		}
	}
	for name := range equivalent {
		if !names[name] {
			t.Errorf("%s: it is said to be equivalent, and is not in the list", name)
		}
	}
}

func testNames(t *testing.T) map[string]bool {
	files, err := filepath.Glob(filepath.Join(pglock, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	names := make(map[string]bool)
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, match := range regexp.MustCompile(`(?m)^func (Test\w+)\(t `).FindAllStringSubmatch(string(b), -1) {
			names[match[1]] = true
		}
	}
	return names
}

// mutantsVar is set by make mutants: they take minutes.
const mutantsVar = "SWANLOCK_MUTANTS"

// TestMutants runs the tests of each mutant on it. One that survives is an
// error, unless it is in the list of those that are equivalent; of these, one
// that is killed.
func TestMutants(t *testing.T) {
	if os.Getenv(mutantsVar) == "" {
		t.Skip("it takes minutes: make mutants")
	}
	killed, survived := 0, 0
	for _, m := range mutants() {
		t.Run(m.name, func(t *testing.T) {
			start := time.Now()
			killer, output := m.run(t)
			took := time.Since(start).Round(100 * time.Millisecond)
			reason, isEquivalent := equivalent[m.name]
			switch {
			case killer == "" && isEquivalent:
				t.Logf("equivalent: %s", reason)
			case killer == "":
				survived++
				t.Errorf("SURVIVED %s, after %v", m.tests, took)
			case isEquivalent:
				t.Errorf("killed by %s, though it is said to be equivalent:\n%s", killer, output)
			default:
				killed++
				t.Logf("killed by %s, after %v", killer, took)
			}
		})
	}
	t.Logf("%d killed, %d SURVIVED, %d are equivalent", killed, survived, len(equivalent))
}

var (
	failed = regexp.MustCompile(`(?m)^ *--- FAIL: (\S+)`)
	hung   = regexp.MustCompile(`panic: test timed out after \S+\s+running tests:\s+(\S+)`)
	leaked = regexp.MustCompile(`(?m)^goleak: `)
	crash  = regexp.MustCompile(`(?m)^(panic|fatal error): .*`)
)

// run runs the tests of m on it and says what has killed it: "" nothing.
func (m mutant) run(t *testing.T) (killer, output string) {
	t.Helper()
	text, err := m.mutated()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	original, err := filepath.Abs(filepath.Join(pglock, m.file))
	if err != nil {
		t.Fatal(err)
	}
	copied, list := filepath.Join(dir, filepath.Base(m.file)), filepath.Join(dir, "overlay.json")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {original: copied}})
	if err != nil {
		t.Fatal(err)
	}
	for file, content := range map[string]string{copied: text, list: string(overlay)} {
		if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	parts := strings.Split(m.tests, "|")
	for i, part := range parts {
		top, sub, found := strings.Cut(part, "/")
		parts[i] = "^" + top + "$"
		if found {
			parts[i] += "/" + sub
		}
	}
	c := exec.Command("go", "test", "-overlay", list, "-vet=off", "-short", "-failfast", "-count=1", "-timeout=1m",
		"-run", strings.Join(parts, "|"), ".")
	c.Dir = pglock
	driver := "pgx"
	if strings.Contains(m.tests, "/postgres") {
		driver = "postgres"
	}
	c.Env = append(os.Environ(), mutantsVar+"=", "SWANLOCK_DRIVERS="+driver)
	b, err := c.CombinedOutput()
	output = string(b)
	if err == nil {
		if strings.Contains(output, "no tests to run") {
			t.Fatalf("no test is called %s", m.tests)
		}
		return "", output
	}
	if names := failed.FindAllStringSubmatch(output, -1); names != nil {
		return names[len(names)-1][1], output
	}
	if name := hung.FindStringSubmatch(output); name != nil {
		return name[1] + ", which hangs", output
	}
	if leaked.MatchString(output) {
		return "goleak", output
	}
	if line := crash.FindString(output); line != "" && !strings.Contains(output, "[build failed]") {
		return line, output
	}
	t.Fatalf("the tests did not run: %v\n%s", err, output)
	return "", ""
}
