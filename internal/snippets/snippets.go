// Package snippets compiles the Go that a document shows.
package snippets

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A Page is a document and what its pieces of Go are written for.
type Page struct {
	File    string
	Imports string // what the pieces import
	Given   string // the parameters of each piece: what stands around it
	Beside  string // what stands beside functions
	Pieces  int    // how many there are at least
}

var blocks = regexp.MustCompile("(?s)```go\n(.*?)```")

// Check compiles each piece of the page's Go, as the body of a function, with the
// packages of the module in whose folder the test runs. A piece that is a function
// stands for itself. A variable that nothing uses is no fault of a piece.
func Check(t *testing.T, p Page) {
	t.Helper()
	text, err := os.ReadFile(p.File)
	if err != nil {
		t.Fatal(err)
	}
	var program strings.Builder
	fmt.Fprintf(&program, "package main\nimport (\n%s)\nfunc main() {}\n%s\n", p.Imports, p.Beside)
	all := blocks.FindAllStringSubmatch(string(text), -1)
	for i, block := range all {
		piece := strings.ReplaceAll(block[1], "…\n", "")
		if !strings.HasPrefix(piece, "func ") {
			piece = fmt.Sprintf("func piece%d(%s) error {\n%s\nreturn nil\n}\n", i, p.Given, piece)
		}
		program.WriteString(piece)
	}
	if len(all) < p.Pieces {
		t.Errorf("%s has %d pieces of Go, want %d at least", p.File, len(all), p.Pieces)
	}
	file := filepath.Join(t.TempDir(), "main.go")
	if err := os.WriteFile(file, []byte(program.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "build", "-gcflags=-e", "-o", os.DevNull, file).CombinedOutput()
	if err != nil && len(out) == 0 {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "#") && !strings.Contains(line, "declared and not used") {
			t.Errorf("%s: %s", p.File, line)
		}
	}
}
