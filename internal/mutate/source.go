package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A source is a package as it is written, with its types.
type source struct {
	ImportPath, Dir, Name, Export string
	GoFiles                       []string
	TestGoFiles, XTestGoFiles     []string

	root    string
	exports map[string]string // the file with the types of each package
	fset    *token.FileSet
	files   []*ast.File
	texts   map[string][]byte // by the file's full path
	info    *types.Info
	types   *types.Package
}

// load returns the packages that match the pattern, in the module at root.
func load(root, pattern string) ([]*source, error) {
	c := exec.Command("go", "list", "-export", "-deps", "-json=ImportPath,Dir,Name,Export,GoFiles,TestGoFiles,XTestGoFiles,DepOnly,Standard", pattern,
		"os", "strconv") // which mutant__.go imports
	c.Dir, c.Stderr = root, os.Stderr
	list, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w", err)
	}
	exports := make(map[string]string)
	var found []*source
	for d := json.NewDecoder(bytes.NewReader(list)); ; {
		var p struct {
			source
			DepOnly, Standard bool
		}
		if err := d.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			return nil, err
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly && !p.Standard {
			found = append(found, &p.source)
		}
	}
	for _, s := range found {
		s.root, s.exports = root, exports
		texts := make(map[string][]byte)
		for _, file := range s.GoFiles {
			path := filepath.Join(s.Dir, file)
			if texts[path], err = os.ReadFile(path); err != nil {
				return nil, err
			}
		}
		if errs := s.check(texts); errs != nil {
			return nil, errors.Join(errs...)
		}
	}
	return found, nil
}

// check parses the texts and finds their types. It returns all errors.
func (s *source) check(texts map[string][]byte) (errs []error) {
	s.fset, s.texts, s.files = token.NewFileSet(), texts, nil
	for path, text := range texts {
		f, err := parser.ParseFile(s.fset, path, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return []error{err}
		}
		s.files = append(s.files, f)
	}
	slices.SortFunc(s.files, func(a, b *ast.File) int { return strings.Compare(s.path(a.Pos()), s.path(b.Pos())) })
	conf := types.Config{
		Importer: importer.ForCompiler(s.fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(s.exports[path]) }),
		Error:    func(err error) { errs = append(errs, err) },
	}
	s.info = &types.Info{Types: make(map[ast.Expr]types.TypeAndValue), Uses: make(map[*ast.Ident]types.Object),
		Selections: make(map[*ast.SelectorExpr]*types.Selection)}
	s.types, _ = conf.Check(s.ImportPath, s.fset, s.files, s.info)
	return errs
}

// text returns what stands between two places of a file.
func (s *source) text(pos, end token.Pos) string {
	p := s.fset.Position(pos)
	return string(s.texts[p.Filename][p.Offset : p.Offset+int(end-pos)])
}

// path returns a file's path from the root of the module.
func (s *source) path(pos token.Pos) string {
	full := s.fset.Position(pos).Filename
	if rel, err := filepath.Rel(s.root, full); err == nil && s.root != "" {
		return filepath.ToSlash(rel)
	}
	return full
}

// functions returns the functions that have a body.
func (s *source) functions() (all []*ast.FuncDecl) {
	for _, f := range s.files {
		for _, d := range f.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Body != nil && fn.Name.Name != "init" {
				all = append(all, fn)
			}
		}
	}
	return all
}

// copies returns the text of each file with its mutants added: one copy of a
// function for each, behind the file's own text, and a switch at the beginning
// of the function, which calls the copy whose number is in mutant__. So one
// build has all mutants, and a run of it chooses one by the environment.
// A mutant that does not compile shows as an error of its copy: ranges has the
// offsets of the copies.
func (s *source) copies(mutants []*mutant) (texts map[string][]byte, ranges map[*mutant][2]int) {
	texts, ranges = make(map[string][]byte), make(map[*mutant][2]int)
	for _, f := range s.files {
		path := s.fset.Position(f.Pos()).Filename
		var body, tail bytes.Buffer
		at := f.FileStart
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			of := slices.DeleteFunc(slices.Clone(mutants), func(m *mutant) bool { return m.fn != fn })
			if len(of) == 0 {
				continue
			}
			header, names := s.header(fn)
			body.WriteString(s.text(at, fn.Pos()) + header(fn.Name.Name) + " { switch mutant__ {")
			for _, m := range of {
				name := fmt.Sprintf("mutant%d__%s", m.number, fn.Name.Name)
				fmt.Fprintf(&body, "case %d: %s; ", m.number, names.call(fn, name))
				start := tail.Len()
				tail.WriteString("\n" + header(name) + s.text(fn.Body.Pos(), m.pos) + m.text + s.text(m.end, fn.Body.End()) + "\n")
				ranges[m] = [2]int{start, tail.Len()}
			}
			body.WriteString("};")
			at = fn.Body.Lbrace + 1
		}
		body.WriteString(s.text(at, f.FileEnd))
		for _, m := range mutants {
			if r, ok := ranges[m]; ok && f.FileStart <= m.pos && m.pos < f.FileEnd {
				ranges[m] = [2]int{r[0] + body.Len(), r[1] + body.Len()}
			}
		}
		texts[path] = append(body.Bytes(), tail.Bytes()...)
	}
	texts[filepath.Join(s.Dir, "mutant__.go")] = fmt.Appendf(nil,
		"package %s\n\nimport (\"os\"; \"strconv\")\n\nvar mutant__, _ = strconv.Atoi(os.Getenv(%q))\n", s.Name, mutantVar)
	return texts, ranges
}

// names are a function's receiver, type parameters and parameters.
type names struct {
	receiver, types string
	params          []string
}

func (n names) call(fn *ast.FuncDecl, name string) string {
	call := name + n.types + "(" + strings.Join(n.params, ", ") + ")"
	if n.receiver != "" {
		call = n.receiver + "." + call
	}
	if fn.Type.Results != nil {
		return "return " + call
	}
	return call + "; return"
}

// header returns what stands before fn's body, for any name, and the names in
// it. What has no name is given one.
func (s *source) header(fn *ast.FuncDecl) (of func(name string) string, n names) {
	text, at := "", fn.Type.Params.Pos()
	add := func(f *ast.Field, list *[]string) {
		if len(f.Names) == 0 {
			name := fmt.Sprintf("p%d__", f.Pos())
			text, at = text+s.text(at, f.Pos())+name+" ", f.Pos()
			*list = append(*list, name)
		}
		for _, id := range f.Names {
			name := id.Name
			if name == "_" {
				name = fmt.Sprintf("p%d__", id.Pos())
				text, at = text+s.text(at, id.Pos())+name, id.End()
			}
			*list = append(*list, name)
		}
	}
	before := "func "
	if fn.Recv != nil {
		var receiver []string
		at = fn.Recv.Pos()
		add(fn.Recv.List[0], &receiver)
		before, text = before+text+s.text(at, fn.Recv.End())+" ", ""
		n.receiver, at = receiver[0], fn.Type.Params.Pos()
	}
	between := ""
	if fn.Type.TypeParams != nil {
		between = s.text(fn.Type.TypeParams.Pos(), fn.Type.TypeParams.End())
		var list []string
		for _, f := range fn.Type.TypeParams.List {
			for _, id := range f.Names {
				list = append(list, id.Name)
			}
		}
		n.types = "[" + strings.Join(list, ", ") + "]"
	}
	for _, f := range fn.Type.Params.List {
		add(f, &n.params)
		if _, variadic := f.Type.(*ast.Ellipsis); variadic {
			n.params[len(n.params)-1] += "..."
		}
	}
	text += s.text(at, fn.Body.Pos())
	return func(name string) string { return before + name + between + text }, n
}

// compiling numbers the mutants and leaves out those that do not compile.
func (s *source) compiling(mutants []*mutant, first int) (good []*mutant, err error) {
	for i, m := range mutants {
		m.number = first + i
	}
	texts, ranges := s.copies(mutants)
	fresh := *s
	bad := make(map[*mutant]bool)
	for _, err := range fresh.check(texts) {
		var e types.Error
		if !errors.As(err, &e) {
			return nil, err
		}
		at, found := fresh.fset.Position(e.Pos), false
		for m, r := range ranges {
			if s.fset.Position(m.pos).Filename == at.Filename && r[0] <= at.Offset && at.Offset < r[1] {
				bad[m], found = true, true
			}
		}
		if !found {
			return nil, err
		}
	}
	return slices.DeleteFunc(mutants, func(m *mutant) bool { return bad[m] }), nil
}
