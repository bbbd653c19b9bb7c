// Command mutate breaks pglock in one place at a time and has its tests find
// that.
//
//	go run ./internal/mutate -since main
//
// It exits with 0 if they find all that is not in the file equivalents, with 1
// if they do not, and with 2 if it could not be run.
package main

import (
	"bytes"
	_ "embed"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

//go:embed equivalents
var equivalentsText string

func main() {
	found, err := run(os.Args[1:], os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(2)
	}
	if found {
		os.Exit(1)
	}
}

// run returns whether there is something to mend.
func run(args []string, out io.Writer) (found bool, err error) {
	flags := flag.NewFlagSet("mutate", flag.ExitOnError)
	since := flags.String("since", "", "only the functions that differ from those of this `revision`")
	pattern := flags.String("mutant", "", "only the mutants whose name, file:function:operator:number, matches this `regexp`")
	sample := flags.Int("sample", 0, "only this `number` of them, chosen at random")
	list := flags.Bool("list", false, "only list them")
	packages := flags.String("packages", "./pglock/...", "whose mutants, and whose tests: a `pattern`")
	cache := flags.String("cache", filepath.Join(".cache", "mutate", "coverage.json"), "the `file` that keeps what each test covers; without it that is found anew")
	workers := flags.Int("j", runtime.NumCPU(), "how many at a time")
	flags.Parse(args)
	wanted, err := regexp.Compile(*pattern)
	if err != nil {
		return false, err
	}
	root, err := os.Getwd()
	if err != nil {
		return false, err
	}
	sources, err := load(root, *packages)
	if err != nil {
		return false, err
	}
	old, err := functionsAt(*since)
	if err != nil {
		return false, err
	}
	equivalents, stale := readEquivalents(equivalentsText)
	var all []*mutant
	texts := make(map[string][]byte)
	for _, s := range sources {
		var mutants []*mutant
		for _, fn := range s.functions() {
			for _, m := range mutantsOf(s, fn) {
				delete(stale, m.id())
				if wanted.MatchString(m.id()) && !old[normal(fn)] {
					mutants = append(mutants, m)
				}
			}
		}
		if mutants, err = s.compiling(mutants, len(all)+1); err != nil {
			return false, err
		}
		if *sample > 0 && *sample < len(mutants) {
			rand.Shuffle(len(mutants), func(i, j int) { mutants[i], mutants[j] = mutants[j], mutants[i] })
			mutants = mutants[:*sample]
		}
		for i, m := range mutants {
			m.number = len(all) + 1 + i
		}
		all = append(all, mutants...)
		copies, _ := s.copies(mutants)
		for path, text := range copies {
			texts[path] = text
		}
	}
	if *list {
		for _, m := range all {
			fmt.Fprintln(out, m)
		}
		return false, nil
	}
	for id := range stale {
		fmt.Fprintf(out, "STALE equivalents names what is not there: %s\n", id)
	}
	dir, err := os.MkdirTemp("", "swanlock-mutate-")
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(dir)
	r := &runner{root: root, dir: dir, packages: *packages, sources: sources, workers: *workers, out: out, sound: make(map[string]bool)}
	c, err := r.cover(*cache)
	if err != nil {
		return false, err
	}
	overlay, err := r.overlay(texts)
	if err != nil {
		return false, err
	}
	if _, err := r.build("-overlay", overlay, "-ldflags=-s -w"); err != nil {
		return false, err
	}
	return len(r.all(c, all, equivalents))+len(stale) > 0, nil
}

// all runs the tests of each mutant, and returns those whose result is not as
// it should be.
func (r *runner) all(c *coverage, mutants []*mutant, equivalents map[string]string) (wrong []*mutant) {
	killed, equivalent := 0, 0
	parallel(r.workers, mutants, func(m *mutant) {
		start := time.Now()
		reason, isEquivalent := equivalents[m.id()]
		killer, ran := r.kill(c, m, isEquivalent)
		took := time.Since(start).Round(100 * time.Millisecond)
		r.mu.Lock()
		defer r.mu.Unlock()
		switch {
		case killer == "" && isEquivalent:
			equivalent++
			fmt.Fprintf(r.out, "%s equivalent: %s\n", m, reason)
		case killer == "":
			wrong = append(wrong, m)
			fmt.Fprintf(r.out, "%s SURVIVED %d tests, after %v\n", m, ran, took)
		case isEquivalent:
			wrong = append(wrong, m)
			fmt.Fprintf(r.out, "%s KILLED by %s, though it is said to be equivalent\n", m, killer)
		default:
			killed++
			fmt.Fprintf(r.out, "%s killed by %s, after %v\n", m, killer, took)
		}
	})
	slices.SortFunc(wrong, func(a, b *mutant) int { return a.number - b.number })
	fmt.Fprintf(r.out, "%d mutants: %d killed, %d equivalent, %d to mend\n", len(mutants), killed, equivalent, len(wrong))
	for _, m := range wrong {
		fmt.Fprintf(r.out, "%s\n\t%s\n", m.id(), m)
	}
	return wrong
}

// readEquivalents returns the reason of each mutant that no test can tell from
// the code: a line is its name, a space and the reason. Stale has all of them.
func readEquivalents(text string) (reasons map[string]string, stale map[string]bool) {
	reasons, stale = make(map[string]string), make(map[string]bool)
	for line := range strings.Lines(text) {
		if id, reason, ok := strings.Cut(strings.TrimSpace(line), " "); ok && id != "#" {
			reasons[id], stale[id] = reason, true
		}
	}
	return reasons, stale
}

// functionsAt returns pglock's functions as they were, in their normal form.
func functionsAt(revision string) (map[string]bool, error) {
	old := make(map[string]bool)
	if revision == "" {
		return old, nil
	}
	files, err := exec.Command("git", "ls-tree", "-r", "--name-only", revision, "pglock").Output()
	if err != nil {
		return nil, fmt.Errorf("git ls-tree %s: %w", revision, err)
	}
	for _, file := range strings.Fields(string(files)) {
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := exec.Command("git", "show", revision+":"+file).Output()
		if err != nil {
			return nil, fmt.Errorf("git show %s:%s: %w", revision, file, err)
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok {
				old[normal(fn)] = true
			}
		}
	}
	return old, nil
}

// normal returns the text of fn without what does not matter: comments, and
// where it stands.
func normal(fn *ast.FuncDecl) string {
	bare := *fn
	bare.Doc = nil
	var b bytes.Buffer
	printer.Fprint(&b, token.NewFileSet(), &bare)
	return b.String()
}
