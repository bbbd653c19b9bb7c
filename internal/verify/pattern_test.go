package verify_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/printer"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An edit replaces code that a function has exactly once: an expression, or
// some statements that follow one another. Neither the layout nor the file
// matters, only that the function is below the folder. In the text of an SQL
// statement, which is named as its constant is, white space does not matter.
type edit struct{ folder, name, old, new string }

// A place is where an edit goes, by the offsets in a file.
type place struct {
	file       string
	start, end int
}

// find returns the place of e, or an error that says what is there instead.
func (e edit) find() (place, error) {
	var places []place
	others := make(map[string]ast.Node) // what has another name
	named := false
	err := filepath.WalkDir(filepath.Join(root, e.folder), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(file) != ".go" || strings.HasSuffix(file, "_test.go") {
			return err
		}
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, file, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		for name, n := range declared(f) {
			if name != e.name {
				others[name] = n
				continue
			}
			found, err := e.in(n)
			if named = true; err != nil {
				return err
			}
			for _, at := range found {
				places = append(places, place{file, fset.Position(at[0]).Offset, fset.Position(at[1]).Offset})
			}
		}
		return nil
	})
	if err != nil {
		return place{}, err
	}
	if len(places) == 1 {
		return places[0], nil
	}
	var elsewhere []string // what has the code, and another name
	for name, n := range others {
		if found, _ := e.in(n); len(found) > 0 {
			elsewhere = append(elsewhere, name)
		}
	}
	slices.Sort(elsewhere)
	if !named {
		return place{}, fmt.Errorf("%s has no %s; the code %q is in %v", e.folder, e.name, e.old, elsewhere)
	}
	return place{}, fmt.Errorf("%s in %s has the code %d times, not once: %q; it is also in %v", e.name, e.folder, len(places), e.old, elsewhere)
}

// declared returns the functions and the string constants of a file by their
// names: Pool.Close.
func declared(f *ast.File) map[string]ast.Node {
	all := make(map[string]ast.Node)
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			name := d.Name.Name
			if d.Recv != nil {
				name = strings.TrimPrefix(normal(d.Recv.List[0].Type), "*") + "." + name
			}
			if d.Body != nil {
				all[name] = d.Body
			}
		case *ast.GenDecl:
			for _, spec := range d.Specs {
				if v, ok := spec.(*ast.ValueSpec); ok && d.Tok == token.CONST && len(v.Values) == 1 {
					if text, ok := v.Values[0].(*ast.BasicLit); ok && text.Kind == token.STRING {
						all[v.Names[0].Name] = text
					}
				}
			}
		}
	}
	return all
}

// in returns where the code of e begins and ends, each time that n has it.
func (e edit) in(n ast.Node) (found [][2]token.Pos, err error) {
	if text, ok := n.(*ast.BasicLit); ok {
		words := strings.Fields(e.old)
		for i, word := range words {
			words[i] = regexp.QuoteMeta(word)
		}
		for _, at := range regexp.MustCompile(strings.Join(words, `\s+`)).FindAllStringIndex(text.Value, -1) {
			found = append(found, [2]token.Pos{text.Pos() + token.Pos(at[0]), text.Pos() + token.Pos(at[1])})
		}
		return found, nil
	}
	pattern, err := code(e.old)
	if err != nil {
		return nil, err
	}
	ast.Inspect(n, func(n ast.Node) bool {
		for _, list := range sequences(n) {
			for i := 0; i+len(pattern) <= len(list); i++ {
				if slices.EqualFunc(pattern, list[i:i+len(pattern)], func(want string, n ast.Node) bool { return normal(n) == want }) {
					at := [2]token.Pos{list[i].Pos(), list[i+len(pattern)-1].End()}
					if !slices.Contains(found, at) { // a call is an expression and a statement
						found = append(found, at)
					}
				}
			}
		}
		return true
	})
	return found, nil
}

// code returns the normal form of an expression, or of each of some statements.
func code(text string) (pattern []string, err error) {
	if e, err := parser.ParseExpr(text); err == nil {
		return []string{normal(e)}, nil
	}
	f, err := parser.ParseFile(token.NewFileSet(), "", "package p; func _() {\n"+text+"\n}", parser.SkipObjectResolution)
	if err != nil {
		return nil, fmt.Errorf("neither an expression nor statements: %q: %w", text, err)
	}
	for _, s := range f.Decls[0].(*ast.FuncDecl).Body.List {
		pattern = append(pattern, normal(s))
	}
	return pattern, nil
}

// sequences returns n itself if it is an expression, and the statements that
// follow one another in it.
func sequences(n ast.Node) [][]ast.Node {
	var list []ast.Stmt
	switch n := n.(type) {
	case ast.Expr:
		return [][]ast.Node{{n}}
	case *ast.BlockStmt:
		list = n.List
	case *ast.CaseClause:
		list = n.Body
	case *ast.CommClause:
		list = n.Body
	}
	nodes := make([]ast.Node, len(list))
	for i, s := range list {
		nodes[i] = s
	}
	return [][]ast.Node{nodes}
}

// normal returns the text of n, laid out in the one way that does not depend on
// how it stands in its file, and without comments.
func normal(n ast.Node) string {
	var b bytes.Buffer
	printer.Fprint(&b, token.NewFileSet(), n)
	return b.String()
}

// apply returns what the files of k become. A package that os__ is used in
// imports os so.
func (k knockout) apply() (map[string]string, error) {
	texts := make(map[string]string)
	type change struct {
		place
		new string
	}
	var changes []change
	for _, e := range k.edits {
		at, err := e.find()
		if err != nil {
			return nil, err
		}
		changes = append(changes, change{at, e.new})
		if strings.Contains(e.new, "os__.") {
			f, err := parser.ParseFile(token.NewFileSet(), at.file, nil, parser.PackageClauseOnly)
			if err != nil {
				return nil, err
			}
			end := int(f.Name.End()) - 1
			changes = append(changes, change{place{at.file, end, end}, `; import os__ "os"`})
		}
	}
	slices.SortFunc(changes, func(a, b change) int { return b.start - a.start })
	for _, c := range changes {
		text, ok := texts[c.file]
		if !ok {
			b, err := os.ReadFile(c.file)
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		texts[c.file] = text[:c.start] + c.new + text[c.end:]
	}
	return texts, nil
}

// TestPatterns: an edit finds its code in another layout, and says what is
// there when it does not.
func TestPatterns(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "", `package p
const Q = `+"`SELECT  pg_try(1)\n  FROM x`"+`
func (d *door) open(n int) (int, error) {
	if n > 1 || // a comment
		d.closed(n,
			2) {
		d.unlock(n) // why
		return 0,

			errLate
	}
	d.unlock(n)
	return n, nil
}`, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	all := declared(f)
	for _, test := range []struct {
		name, old string
		want      int
	}{
		{"door.open", "n > 1 || d.closed(n, 2)", 1},
		{"door.open", "d.unlock(n)\nreturn 0, errLate", 1},
		{"door.open", "if n>1||d.closed(n,2) { d.unlock(n); return 0, errLate }", 1},
		{"door.open", "d.unlock(n)", 2},
		{"door.open", "d.unlock(m)", 0},
		{"door.open", "d.unlock(n)\nreturn 1, errLate", 0},
		{"Q", "SELECT pg_try(1) FROM", 1},
		{"Q", "SELECT pg_try(2)", 0},
	} {
		found, err := edit{name: test.name, old: test.old}.in(all[test.name])
		if err != nil || len(found) != test.want {
			t.Errorf("%s: %q: got %d places, %v, want %d", test.name, test.old, len(found), err, test.want)
		}
	}
	for want, e := range map[string]edit{
		"pglock has no hold.expires; the code": {"pglock", "hold.expires", "h.end(swanlock.ErrExpired)", ""},
		"it is also in [hold.expire":           {"pglock", "hold.endLocked", "h.endLocked(swanlock.ErrExpired)", ""},
		"has the code 0 times, not once":       {"pglock", "Pool.Close", "nobody()", ""},
		"neither an expression nor statements": {"pglock", "Pool.Close", "return ((", ""},
	} {
		if _, err := e.find(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got the error %v, want one with %s", strconv.Quote(e.old), err, want)
		}
	}
}
