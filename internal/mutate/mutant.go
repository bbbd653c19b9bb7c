package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// A mutant is a function with one place of it changed.
type mutant struct {
	number   int // in the build of all mutants
	pkg      *source
	fn       *ast.FuncDecl
	file     string // by its path from the module's root
	name     string // of the function: Pool.Close
	op       string
	n        int // counts the mutants of an operator in a function, from 1
	pos, end token.Pos
	text     string // stands there instead
}

// id names a mutant for people and for the file equivalents.
func (m *mutant) id() string { return fmt.Sprintf("%s:%s:%s:%d", m.file, m.name, m.op, m.n) }

// String tells the line, and what has become of the code there.
func (m *mutant) String() string {
	short := func(s string) string {
		s = strings.Join(strings.Fields(s), " ")
		if r := []rune(s); len(r) > 60 {
			s = string(r[:29]) + " … " + string(r[len(r)-28:])
		}
		return s
	}
	return fmt.Sprintf("%s:%d %s %s#%d: %s => %s", m.file, m.pkg.fset.Position(m.pos).Line, m.name, m.op, m.n,
		short(m.pkg.text(m.pos, m.end)), short(m.text))
}

// A walk finds the mutants of one function.
type walk struct {
	s     *source
	fn    *ast.FuncDecl
	name  string
	found []*mutant
}

// mutantsOf returns the mutants of fn, in the order of the text.
func mutantsOf(s *source, fn *ast.FuncDecl) []*mutant {
	w := &walk{s: s, fn: fn, name: nameOf(fn)}
	ast.PreorderStack(fn.Body, []ast.Node{fn}, func(n ast.Node, stack []ast.Node) bool {
		for _, op := range operators {
			op(w, n, stack[len(stack)-1])
		}
		return true
	})
	slices.SortStableFunc(w.found, func(a, b *mutant) int { return int(a.pos - b.pos) })
	count := make(map[string]int)
	for _, m := range w.found {
		count[m.op]++
		m.n = count[m.op]
	}
	return w.found
}

func nameOf(fn *ast.FuncDecl) string {
	if fn.Recv == nil {
		return fn.Name.Name
	}
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	switch generic := t.(type) {
	case *ast.IndexExpr:
		t = generic.X
	case *ast.IndexListExpr:
		t = generic.X
	}
	return t.(*ast.Ident).Name + "." + fn.Name.Name
}

// put notes a mutant that has text instead of n.
func (w *walk) put(op string, n ast.Node, text string, args ...any) {
	w.putAt(op, n.Pos(), n.End(), text, args...)
}

func (w *walk) putAt(op string, pos, end token.Pos, text string, args ...any) {
	w.found = append(w.found, &mutant{pkg: w.s, fn: w.fn, file: w.s.path(pos), name: w.name,
		op: op, pos: pos, end: end, text: fmt.Sprintf(text, args...)})
}

func (w *walk) src(n ast.Node) string { return w.s.text(n.Pos(), n.End()) }

func (w *walk) text(list []ast.Expr) string {
	texts := make([]string, len(list))
	for i, e := range list {
		texts[i] = w.src(e)
	}
	return strings.Join(texts, ", ")
}

func (w *walk) isBool(e ast.Expr) bool {
	v, ok := w.s.info.Types[e]
	return ok && v.IsValue() && isBasic(v.Type, types.IsBoolean)
}

func isBasic(t types.Type, kind types.BasicInfo) bool {
	b, ok := t.Underlying().(*types.Basic)
	return ok && b.Info()&kind != 0
}

// uses returns a statement that uses the local variables which n uses, as the
// compiler wants each of them to be used somewhere.
func (w *walk) uses(n ast.Node) string {
	var names []string
	ast.Inspect(n, func(inner ast.Node) bool {
		if id, ok := inner.(*ast.Ident); ok {
			v, ok := w.s.info.Uses[id].(*types.Var)
			local := ok && !v.IsField() && v.Parent() != w.s.types.Scope() && v.Pkg() == w.s.types
			if local && (v.Pos() < n.Pos() || v.Pos() >= n.End()) && !slices.Contains(names, id.Name) {
				names = append(names, id.Name)
			}
		}
		return true
	})
	if len(names) == 0 {
		return ""
	}
	return strings.Repeat(", _", len(names))[2:] + " = " + strings.Join(names, ", ")
}

func calls(n ast.Node, name string) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	id, ok := call.Fun.(*ast.Ident)
	return ok && id.Name == name
}
