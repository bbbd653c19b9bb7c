package main

import (
	"bytes"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the golden file")

const ops = "./internal/mutate/testdata/ops/..."

func root(t *testing.T) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// TestOperators: what the operators make of a small package, and which of that
// does not compile.
func TestOperators(t *testing.T) {
	sources, err := load(root(t), ops)
	if err != nil {
		t.Fatal(err)
	}
	s := sources[len(sources)-1] // dependencies come first
	var all []*mutant
	for _, fn := range s.functions() {
		all = append(all, mutantsOf(s, fn)...)
	}
	lines := make(map[*mutant]string)
	for _, m := range all {
		lines[m] = strings.TrimPrefix(m.String(), "internal/mutate/testdata/ops/")
	}
	order := append([]*mutant(nil), all...)
	good, err := s.compiling(all, 1)
	if err != nil {
		t.Fatal(err)
	}
	compiles := make(map[*mutant]bool)
	for _, m := range good {
		compiles[m] = true
	}
	var got strings.Builder
	for _, m := range order {
		got.WriteString(lines[m])
		if !compiles[m] {
			got.WriteString(" (does not compile)")
		}
		got.WriteString("\n")
	}
	golden := filepath.Join("testdata", "ops.golden")
	if *update {
		if err := os.WriteFile(golden, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got.String() != string(want) {
		t.Errorf("the mutants differ from %s (go test ./internal/mutate -update):\n%s", golden, got.String())
	}
}

// TestRun: mutants of a small package are killed by the tests that cover them,
// and the one that survives is told.
func TestRun(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds tests")
	}
	t.Chdir(root(t))
	args := []string{"-packages", ops, "-cache", filepath.Join(t.TempDir(), "coverage.json"), "-mutant", "label|sub:|Last"}
	var out bytes.Buffer
	found, err := run(args, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	if !found {
		t.Errorf("got nothing to mend, want what is missing in TestLabel")
	}
	for _, want := range []string{
		`sub zero#1: return a - b => _, _ = a, b; return \*new\(T\) killed by internal/mutate/testdata/ops.TestSub,`,
		`label zero#1: return "few" => return "" killed by internal/mutate/testdata/ops.TestLabel,`,
		`label bound#3: 2 => 3 killed by internal/mutate/testdata/ops.TestLabel,`,
		`inner.go:5 Last zero#1: .* killed by internal/mutate/testdata/ops.TestLast,`,
		`label case#3: , 2 =>  SURVIVED`,
		`internal/mutate/testdata/ops/ops.go:label:case:3$`,
	} {
		if !regexp.MustCompile(`(?m)` + want).Match(out.Bytes()) {
			t.Errorf("the output has no %q", want)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}

// TestNormal: a function is the same if only its layout, its comments or its
// place have changed.
func TestNormal(t *testing.T) {
	parse := func(text string) string {
		f, err := parser.ParseFile(token.NewFileSet(), "x.go", "package x\n"+text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		return normal(f.Decls[len(f.Decls)-1].(*ast.FuncDecl))
	}
	a := parse("func (d door) f() int { return g(1, 2) }")
	if b := parse("var x int\n\n// f is commented on.\nfunc (d door) f() int {\n\treturn g(1, // one\n2)\n}"); a != b {
		t.Errorf("got\n%s\nand\n%s\nwant the same", a, b)
	}
	for _, other := range []string{"func (d door) f() int { return g(1, 3) }", "func (d *door) f() int { return g(1, 2) }"} {
		if b := parse(other); a == b {
			t.Errorf("got the same for %s", other)
		}
	}
}

// TestTestsFor: the tests that cover the line, the quickest first; those of the
// function when its text has changed; all when it is new.
func TestTestsFor(t *testing.T) {
	sources, err := load(root(t), ops)
	if err != nil {
		t.Fatal(err)
	}
	var label *ast.FuncDecl
	for _, fn := range sources[len(sources)-1].functions() {
		if fn.Name.Name == "label" {
			label = fn
		}
	}
	m := mutantsOf(sources[len(sources)-1], label)[0]
	m.pos = label.Body.List[1].Pos() // line 6 of the function, from 0: 5
	name, exact := key(sources[len(sources)-1], label)
	c := &coverage{map[string]*covered{
		"deep":      {3, map[string][][2]int{exact: {{4, 5}}}},
		"quick":     {1, map[string][][2]int{exact: {{0, 1}, {5, 5}}}},
		"elsewhere": {0.1, map[string][][2]int{exact: {{0, 4}}}},
		"none":      {0.2, nil},
	}}
	check := func(what, want string) {
		t.Helper()
		if got := fmt.Sprint(c.testsFor(m)); got != want {
			t.Errorf("%s: got %s, want %s", what, got, want)
		}
	}
	check("known", "[quick deep]")
	c.Tests["older"] = &covered{2, map[string][][2]int{name + "other": {{0, 1}}}}
	check("changed since one test was run", "[quick older deep]")
	delete(c.Tests, "older")
	for _, covered := range c.Tests {
		if blocks, ok := covered.Lines[exact]; ok {
			covered.Lines = map[string][][2]int{name + "other": blocks}
		}
	}
	check("changed", "[elsewhere quick deep]")
	for _, covered := range c.Tests {
		covered.Lines = nil
	}
	check("new", "[elsewhere none quick deep]")
}
