package swanlock_test

import (
	"cmp"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// texts returns the module's files with one of the extensions, by their paths.
func texts(t *testing.T, extensions ...string) map[string]string {
	t.Helper()
	found := map[string]string{}
	err := filepath.WalkDir(".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir():
			if name != "." && strings.HasPrefix(entry.Name(), ".") || entry.Name() == "node_modules" {
				return filepath.SkipDir
			}
		case slices.Contains(extensions, filepath.Ext(name)):
			text, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			found[filepath.ToSlash(name)] = string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

var (
	factHeading  = regexp.MustCompile(`(?m)^### Fact (\d+): \S`)
	factCitation = regexp.MustCompile(`\b[Ff]acts? \d+(?:(?:,| and|, and) \d+)*`)
	lineBreak    = regexp.MustCompile(`[ \t]*\n[ \t]*(?://|--)?[ \t]*`)
	digits       = regexp.MustCompile(`\d+`)
)

// cited returns the numbers of the facts that text cites, in a list that may go on
// in the next line of a comment.
func cited(text string) (numbers []string) {
	for _, citation := range factCitation.FindAllString(lineBreak.ReplaceAllString(text, " "), -1) {
		numbers = append(numbers, digits.FindAllString(citation, -1)...)
	}
	return numbers
}

// TestFactsExist: a fact that is cited anywhere is in docs/postgresql.md, once.
func TestFactsExist(t *testing.T) {
	const home = "docs/postgresql.md"
	files := texts(t, ".go", ".sql", ".md")
	facts := map[string]int{}
	for _, heading := range factHeading.FindAllStringSubmatch(files[home], -1) {
		facts[heading[1]]++
	}
	for number, times := range facts {
		if times > 1 {
			t.Errorf("%s has Fact %s %d times", home, number, times)
		}
	}
	citing := 0
	for name, text := range files {
		for _, number := range cited(text) {
			if name != home {
				citing++
			}
			if facts[number] == 0 {
				t.Errorf("%s cites Fact %s, which %s does not have", name, number, home)
			}
		}
	}
	if len(facts) < 40 || citing < 20 {
		t.Errorf("got %d facts and %d citations of them, want 40 and 20 at least: is this looking at the right files?", len(facts), citing)
	}
}

// TestCited: citations are found however they are written.
func TestCited(t *testing.T) {
	for text, want := range map[string]string{
		"// frees it. Fact 6.\nfunc":                "6",
		"-- as in Facts 1, 21 and 22, and 3 others": "1 21 22 3",
		"// Facts 4,\n\t// 5 and\n\t// 24.":         "4 5 24",
		"(Fact 21; facts 7, and 8)":                 "21 7 8",
		"the fact that 3 of them":                   "",
		"artifacts 3":                               "",
	} {
		if got := strings.Join(cited(text), " "); got != want {
			t.Errorf("cited(%q): got %q, want %q", text, got, want)
		}
	}
}

// TestReadingOrderIsWhole: the order in which to read pglock has each of its files.
func TestReadingOrderIsWhole(t *testing.T) {
	design, err := os.ReadFile("docs/design.md")
	if err != nil {
		t.Fatal(err)
	}
	_, order, _ := strings.Cut(string(design), "\n## The order to read it in\n")
	for _, folder := range []string{"pglock", "pglock/internal/oneconn"} {
		files, err := filepath.Glob(folder + "/*.go")
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: %d files, %v", folder, len(files), err)
		}
		for _, file := range files {
			base := filepath.Base(file)
			if base != "doc.go" && !strings.HasSuffix(base, "_test.go") && !strings.Contains(order, "`"+base+"`") {
				t.Errorf("docs/design.md does not say when to read %s", file)
			}
		}
	}
}

// TestDocsNameWhatExists: the tests and files that the documents name are there, and
// so is what they link to.
func TestDocsNameWhatExists(t *testing.T) {
	tests := map[string]bool{}
	sources := texts(t, ".go", ".sql")
	files := map[string]bool{}
	for name, text := range sources {
		files[path.Base(name)] = true
		for _, test := range regexp.MustCompile(`(?m)^func (Test\w+|Fuzz\w+)\(`).FindAllStringSubmatch(text, -1) {
			tests[test[1]] = true
		}
	}
	documents := texts(t, ".md")
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		text := documents[name]
		for _, link := range regexp.MustCompile(`\]\(([^)#:]+)(#[^)]*)?\)`).FindAllStringSubmatch(text, -1) {
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), link[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, link[1], err)
			}
		}
		for _, link := range regexp.MustCompile(`\]\(([^)#:]*)#([^)]*)\)`).FindAllStringSubmatch(text, -1) {
			to := name
			if link[1] != "" {
				to = path.Join(path.Dir(name), link[1])
			}
			if !slices.Contains(anchors(documents[to]), link[2]) {
				t.Errorf("%s links to #%s, which %s does not have", name, link[2], to)
			}
		}
		if name == "CHANGELOG.md" { // what it tells was so once
			continue
		}
		for _, test := range regexp.MustCompile("`((?:Test|Fuzz)[A-Z]\\w*)`").FindAllStringSubmatch(text, -1) {
			if !tests[test[1]] {
				t.Errorf("%s names %s, and there is no such test", name, test[1])
			}
		}
		if path.Dir(name) != "docs" && name != "CONTRIBUTING.md" {
			continue
		}
		for _, file := range regexp.MustCompile("`([a-z_/]+/)?(\\w+\\.(?:go|sql))`").FindAllStringSubmatch(text, -1) {
			if !files[file[2]] && !strings.Contains(elsewhere, " "+file[1]+file[2]+" ") {
				t.Errorf("%s names %s%s, and there is no such file", name, file[1], file[2])
			}
		}
	}
}

// TestBackendsNameTheirTests: the tests in the tables of docs/backends.md are in the
// package that the head of the table names, or the row, and what they name of the
// conformance suite is a case of it.
func TestBackendsNameTheirTests(t *testing.T) {
	sources := texts(t, ".go", ".md")
	tests, suite := map[string]bool{}, map[string]bool{}
	for name, text := range sources {
		for _, test := range regexp.MustCompile(`(?m)^func ((?:Test|Benchmark)\w+)\(`).FindAllStringSubmatch(text, -1) {
			tests[path.Dir(name)+" "+test[1]] = true
		}
		if path.Dir(name) == "locktest" && !strings.HasSuffix(name, "_test.go") {
			for _, c := range regexp.MustCompile(`\bname: +"(\w+)"`).FindAllStringSubmatch(text, -1) {
				suite[c[1]] = true
			}
		}
	}
	named, dir := 0, ""
	for line := range strings.Lines(sources["docs/backends.md"]) {
		if head := regexp.MustCompile("^\\|.*\\| test, in `([^`]+)` \\|$").FindStringSubmatch(strings.TrimSpace(line)); head != nil {
			dir = head[1]
		}
		if !strings.HasPrefix(line, "|") {
			continue
		}
		for _, test := range regexp.MustCompile("`((?:Test|Benchmark)\\w+|\\*)((?:/[\\w*]+)*)`(?: in `([^`]+)`)?").FindAllStringSubmatch(line, -1) {
			in := cmp.Or(test[3], dir)
			if named++; test[1] != "*" && !tests[in+" "+test[1]] {
				t.Errorf("there is no %s in %s", test[1], in)
			}
			if c := path.Base(test[2]); test[2] != "" && !suite[c] {
				t.Errorf("%s%s: locktest has no case %s", test[1], test[2], c)
			}
		}
	}
	if named < 100 || len(suite) < 30 {
		t.Errorf("got %d tests and %d cases, want 100 and 30 at least: is this looking at the right files?", named, len(suite))
	}
}

// elsewhere are the files that the documents name and that are the drivers'.
const elsewhere = " conn.go conn_go18.go pgconn/pgconn.go pgxpool/conn.go stdlib/sql.go "

// anchors returns what the headings of a document may be linked to by.
func anchors(document string) (anchors []string) {
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(document, -1) {
		anchor := strings.ReplaceAll(strings.ToLower(heading[1]), " ", "-")
		anchors = append(anchors, regexp.MustCompile(`[^\w-]`).ReplaceAllString(anchor, ""))
	}
	return anchors
}
