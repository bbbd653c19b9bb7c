package swanlock_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadme sees to it that the README's Go stands, to the letter but for the
// indentation, in an example that is compiled and run.
func TestReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob("*/example*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var examples strings.Builder
	for _, name := range append(files, "example_test.go") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		examples.WriteString(unindented(string(text)))
	}
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(readme), -1)
	if len(blocks) < 3 {
		t.Fatalf("got %d blocks of Go in the README, want 3 or more", len(blocks))
	}
	for _, block := range blocks {
		for part := range strings.SplitSeq(block[1], "\n\n") {
			if part := unindented(part); !strings.Contains(examples.String(), part) {
				t.Errorf("no example runs this part of the README:\n%s", part)
			}
		}
	}
	lines := strings.Split(strings.TrimSuffix(string(readme), "\n"), "\n")
	if !strings.Contains(strings.Join(lines[:min(20, len(lines))], "\n"), "```go") {
		t.Error("the README has no code within its first 20 lines")
	}
	if words := len(strings.Fields(string(readme))); len(lines) > 120 || words > 800 {
		t.Errorf("the README has %d lines and %d words, want 120 and 800 at most: the rest belongs in docs", len(lines), words)
	}
	for _, command := range []string{"make demo", "make test"} {
		if !slices.Contains(lines, "    "+command) {
			t.Errorf("the README does not show %q", command)
		}
	}
}

func unindented(text string) string {
	return regexp.MustCompile(`(?m)^[ \t]+`).ReplaceAllString(strings.TrimSpace(text), "") + "\n"
}
