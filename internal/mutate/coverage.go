package main

import (
	"bufio"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// coverage is what each test runs of the functions: found once, and kept in a
// file. A function is known by its package, its name and its text, and a part of
// it by its lines, counted from its first: so neither a change elsewhere nor a
// move to another file makes that stale.
type coverage struct {
	Tests map[string]*covered // by pglock.TestName
}

type covered struct {
	Seconds float64
	Lines   map[string][][2]int // by the function's key
}

func key(s *source, fn *ast.FuncDecl) (name, exact string) {
	name = s.Dir[len(s.root)+1:] + "." + nameOf(fn) + "@"
	return name, fmt.Sprintf("%s%x", name, sha256.Sum256([]byte(s.text(fn.Pos(), fn.End()))))[:len(name)+8]
}

// testsFor returns the tests that run the place of m, the quickest first. Of a
// test that has run the function with another text, only that is known; if none
// has run the function at all, these are all tests.
func (c *coverage) testsFor(m *mutant) []string {
	name, exact := key(m.pkg, m.fn)
	line := m.pkg.fset.Position(m.pos).Line - m.pkg.fset.Position(m.fn.Pos()).Line
	var at, in, all []string
	for test, covered := range c.Tests {
		all = append(all, test)
		for k, blocks := range covered.Lines {
			if !strings.HasPrefix(k, name) {
				continue
			}
			in = append(in, test)
			if k != exact || slices.ContainsFunc(blocks, func(b [2]int) bool { return b[0] <= line && line <= b[1] }) {
				at = append(at, test)
			}
		}
	}
	if len(in) == 0 {
		at = all
	}
	slices.SortFunc(at, func(a, b string) int {
		return int(1000*(c.Tests[a].Seconds-c.Tests[b].Seconds)) + strings.Compare(a, b)
	})
	return at
}

// seconds is how long the tests take, one after the other.
func (c *coverage) seconds(tests []string) (sum float64) {
	for _, t := range tests {
		sum += c.Tests[t].Seconds
	}
	return sum
}

// cover returns what the file has, brought up to date: a test that is new is
// run, and one that is gone forgotten.
func (r *runner) cover(file string) (*coverage, error) {
	c := &coverage{Tests: make(map[string]*covered)}
	if b, err := os.ReadFile(file); err == nil {
		if err := json.Unmarshal(b, c); err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	tests, err := r.build("-cover", "-coverpkg="+r.packages)
	if err != nil {
		return nil, err
	}
	for test := range c.Tests {
		if !slices.Contains(tests, test) {
			delete(c.Tests, test)
		}
	}
	fresh := slices.DeleteFunc(slices.Clone(tests), func(t string) bool { return c.Tests[t] != nil })
	if len(fresh) == 0 {
		return c, nil
	}
	fmt.Fprintf(r.out, "finding what %d tests cover, once\n", len(fresh))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return nil, err
	}
	var failed error
	parallel(r.workers, fresh, func(test string) {
		profile := filepath.Join(r.dir, filepath.Base(test)+".out")
		start := time.Now()
		if killer, output := r.tests(0, []string{test}, 300, "pgx", "-test.coverprofile="+profile); killer != "" {
			fmt.Fprintf(r.out, "%s fails as it is: %s", test, tail(output)) // under this load
		}
		covered := &covered{time.Since(start).Seconds(), make(map[string][][2]int)}
		err := r.read(profile, covered)
		r.mu.Lock()
		defer r.mu.Unlock()
		if err == nil {
			c.Tests[test] = covered
			var b []byte
			if b, err = json.Marshal(c); err == nil {
				err = os.WriteFile(file, b, 0o644)
			}
		}
		failed = errors.Join(failed, err)
	})
	return c, failed
}

// read notes the blocks of a profile that were run.
func (r *runner) read(profile string, c *covered) error {
	f, err := os.Open(profile)
	if err != nil {
		return err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		file, numbers, ok := strings.Cut(lines.Text(), ".go:")
		var first, last, column, statements, count int
		if !ok || strings.HasPrefix(file, "mode:") {
			continue
		}
		if _, err := fmt.Sscanf(numbers, "%d.%d,%d.%d %d %d", &first, &column, &last, &column, &statements, &count); err != nil {
			return err
		}
		if count == 0 {
			continue
		}
		for _, s := range r.sources {
			for _, fn := range s.functions() {
				from, to := s.fset.Position(fn.Pos()), s.fset.Position(fn.End())
				if s.ImportPath+"/"+filepath.Base(from.Filename) == file+".go" && from.Line <= first && last <= to.Line {
					_, exact := key(s, fn)
					c.Lines[exact] = append(c.Lines[exact], [2]int{first - from.Line, last - from.Line})
				}
			}
		}
	}
	return nil
}
