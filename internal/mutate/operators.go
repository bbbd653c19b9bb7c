package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// An operator is told of a node, and of the nodes around it.
type operator func(w *walk, n ast.Node, parent ast.Node)

// operators are all that there are, in the order in which CONTRIBUTING
// describes them.
var operators = []operator{conditions, drops, cases, bounds, swaps, results, unwraps, clocks}

// conditions makes a condition true, and false: a test that tells the code from
// both also tells it from the condition's opposite. Of a && b and a || b each
// side is made what lets the other one decide.
func conditions(w *walk, n, parent ast.Node) {
	e, ok := n.(ast.Expr)
	if !ok || !w.isBool(e) {
		return
	}
	src := w.src(e)
	if b, ok := e.(*ast.BinaryExpr); ok && b.Op == token.LOR {
		src = "(" + src + ")" // false && a || b would be b.
	}
	always := func() { w.put("always", e, "(true || %s)", src) }
	never := func() { w.put("never", e, "(false && %s)", src) }
	if id, ok := e.(*ast.Ident); ok && (id.Name == "true" || id.Name == "false") {
		w.put("opposite", e, "%t", id.Name == "false")
		return
	}
	switch p := parent.(type) {
	case *ast.BinaryExpr:
		switch p.Op {
		case token.LAND:
			always()
		case token.LOR:
			never()
		}
		return
	case *ast.ForStmt: // if it never ends, only the time limit tells
		never()
		return
	case *ast.AssignStmt:
		if slices.Contains(p.Lhs, e) {
			return
		}
	case *ast.KeyValueExpr:
		if p.Key == e {
			return
		}
	case *ast.IfStmt, *ast.CaseClause, *ast.ReturnStmt, *ast.CallExpr, *ast.CompositeLit:
	default:
		return
	}
	always()
	never()
}

// drops leaves a statement out: a call, also one that is deferred or has a
// goroutine of its own, what is sent, a loop over something, and an assignment
// to each of its variables. What only locks or unlocks a mutex stays: the race detector would
// have to find that.
func drops(w *walk, n, parent ast.Node) {
	if c, ok := parent.(*ast.CommClause); ok && c.Comm == n {
		return // the case goes as a whole
	}
	switch n := n.(type) {
	case *ast.ExprStmt:
		call, ok := n.X.(*ast.CallExpr)
		if ok && !locks(call) {
			w.put("drop", n, "%s", w.uses(n))
		}
	case *ast.DeferStmt:
		if !locks(n.Call) {
			w.put("drop", n, "%s", w.uses(n))
		}
	case *ast.GoStmt, *ast.SendStmt, *ast.IncDecStmt:
		if _, ok := parent.(*ast.ForStmt); !ok {
			w.put("drop", n, "%s", w.uses(n))
		}
	case *ast.RangeStmt:
		w.put("drop", n, "%s", w.uses(n))
	case *ast.BranchStmt:
		if n.Tok == token.CONTINUE || n.Tok == token.BREAK {
			w.put("drop", n, "")
		}
	case *ast.AssignStmt:
		switch _, post := parent.(*ast.ForStmt); {
		case n.Tok == token.DEFINE || post:
		case n.Tok != token.ASSIGN || len(n.Rhs) == 1 && w.s.info.Types[n.Rhs[0]].IsNil():
			w.put("drop", n, "%s", w.uses(n))
		default:
			for _, left := range n.Lhs {
				if id, ok := left.(*ast.Ident); !ok || id.Name != "_" {
					w.put("drop", left, "_")
				}
			}
		}
	}
}

func locks(call *ast.CallExpr) bool {
	f, ok := call.Fun.(*ast.SelectorExpr)
	return ok && slices.Contains([]string{"Lock", "Unlock", "RLock", "RUnlock"}, f.Sel.Name)
}

// cases leaves out a case of a switch, one of a select, or an else. A switch
// without a tag has conditions for its cases.
func cases(w *walk, n, parent ast.Node) {
	switch n := n.(type) {
	case *ast.IfStmt:
		if n.Else != nil {
			w.putAt("case", n.Body.End(), n.Else.End(), "")
		}
	case *ast.CommClause:
		w.put("case", n, "")
	case *ast.CaseClause:
		for i, e := range n.List {
			if w.isBool(e) {
				return
			}
			switch {
			case len(n.List) == 1:
			case i == 0:
				w.putAt("case", e.Pos(), n.List[1].Pos(), "")
			default:
				w.putAt("case", n.List[i-1].End(), e.End(), "")
			}
		}
		if len(n.List) > 0 {
			w.put("case", n, "")
		}
	}
}

var nextBound = map[token.Token]token.Token{token.LSS: token.LEQ, token.LEQ: token.LSS, token.GTR: token.GEQ, token.GEQ: token.GTR}

// bounds moves a bound by the least that there is, and leaves out the right
// side of a sum, a product and the like. Lengths of time are left as they are:
// no test can tell five seconds from six.
func bounds(w *walk, n, parent ast.Node) {
	switch n := n.(type) {
	case *ast.BasicLit:
		i, err := strconv.ParseInt(n.Value, 0, 64)
		if t := w.s.info.TypeOf(n); err != nil || n.Kind != token.INT || t == nil || t.String() == "time.Duration" || calls(parent, "make") {
			return
		}
		w.put("bound", n, "%d", i+1)
		if i > 0 {
			w.put("bound", n, "%d", i-1)
		}
	case *ast.BinaryExpr:
		if to, ok := nextBound[n.Op]; ok {
			w.putAt("bound", n.OpPos, n.OpPos+token.Pos(len(n.Op.String())), "%s", to)
		} else if v := w.s.info.Types[n]; v.Type != nil && isBasic(v.Type, types.IsInteger) && (v.Value == nil || v.Type.String() != "time.Duration") {
			w.put("bound", n, "%s", w.src(n.X))
		}
	}
}

// swaps exchanges two neighbouring arguments of one type.
func swaps(w *walk, n, parent ast.Node) {
	call, ok := n.(*ast.CallExpr)
	if !ok || calls(call, "min") || calls(call, "max") || strings.HasPrefix(w.src(call), "fmt.") || strings.HasPrefix(w.src(call), "errors.") {
		return
	}
	for i := 1; i < len(call.Args); i++ {
		a, b := call.Args[i-1], call.Args[i]
		if ta, tb := w.s.info.TypeOf(a), w.s.info.TypeOf(b); ta != nil && tb != nil && types.Identical(ta, tb) && w.src(a) != w.src(b) {
			w.putAt("swap", a.Pos(), b.End(), "%s, %s", w.src(b), w.src(a))
		}
	}
}

// results returns nil for an error, and the zero value for what else is
// returned, or is the value of a field; bools are conditions. A call is also left
// out whose error is assigned, or passed on to another call.
func results(w *walk, n, parent ast.Node) {
	switch n := n.(type) {
	case *ast.ReturnStmt:
		for _, e := range n.Results {
			if op, zero := w.zero(e); op != "" {
				before := w.s.text(n.Pos(), e.Pos())
				if used := w.uses(e); used != "" {
					before = used + "; " + before
				}
				w.putAt(op, n.Pos(), e.End(), "%s%s", before, zero)
			}
		}
	case *ast.KeyValueExpr:
		if _, ok := w.s.info.Types[n.Value]; !ok || w.s.info.Types[n.Value].Value != nil {
			return
		}
		if op, zero := w.zero(n.Value); op != "" {
			w.put(op, n.Value, "%s", zero)
		}
	case *ast.CallExpr:
		w.errors(n.Args, "nil")
	case *ast.AssignStmt:
		w.errors(n.Rhs, "error(nil)")
	}
}

// errors leaves out the calls among the list that return an error.
func (w *walk) errors(list []ast.Expr, zero string) {
	for _, e := range list {
		if _, ok := e.(*ast.CallExpr); ok {
			if op, _ := w.zero(e); op == "error" {
				w.put(op, e, "%s", zero)
			}
		}
	}
}

// zero returns the zero value of e's type, and which operator puts it there: ""
// if e has more than one value, or is a bool, or that already.
func (w *walk) zero(e ast.Expr) (op, zero string) {
	v := w.s.info.Types[e]
	if _, isTuple := v.Type.(*types.Tuple); isTuple || v.Type == nil || !v.IsValue() || v.IsNil() || w.isBool(e) {
		return "", ""
	}
	op, zero = "zero", "nil"
	_, isParam := v.Type.(*types.TypeParam)
	_, isStruct := v.Type.Underlying().(*types.Struct)
	switch {
	case types.Implements(v.Type, errorType):
		op = "error"
	case isBasic(v.Type, types.IsString):
		zero = `""`
	case isBasic(v.Type, types.IsNumeric):
		zero = "0"
	case isParam || isStruct:
		zero = "*new(" + types.TypeString(v.Type, func(p *types.Package) string {
			if p == w.s.types {
				return ""
			}
			return p.Name()
		}) + ")"
	}
	if w.src(e) == zero {
		return "", ""
	}
	return op, zero
}

var errorType = types.Universe.Lookup("error").Type().Underlying().(*types.Interface)

// unwraps puts an argument, or the receiver, in the place of a call's result of
// the same type: explain(err) becomes err, and min(a, b) a, or
// b; of more than two that are compared one is left out.
func unwraps(w *walk, n, parent ast.Node) {
	switch parent.(type) {
	case *ast.ExprStmt, *ast.DeferStmt, *ast.GoStmt: // what it returns is used by nobody
		return
	}
	call, ok := n.(*ast.CallExpr)
	if !ok || w.isBool(call) || w.s.info.Types[call.Fun].IsType() || calls(call, "append") {
		return
	}
	if src := w.src(call); strings.HasPrefix(src, "fmt.") && strings.Count(src, "%w") < 2 {
		return // an error with a prefix
	}
	if (calls(call, "min") || calls(call, "max")) && len(call.Args) > 2 {
		for i := range call.Args {
			left := slices.Delete(slices.Clone(call.Args), i, i+1)
			w.put("unwrap", call, "%s(%s)", w.src(call.Fun), w.text(left))
		}
		return
	}
	t := w.s.info.TypeOf(call)
	candidates := call.Args
	if f, ok := call.Fun.(*ast.SelectorExpr); ok && w.s.info.Selections[f] != nil {
		candidates = append([]ast.Expr{f.X}, candidates...)
	}
	for _, e := range candidates {
		if te := w.s.info.TypeOf(e); t != nil && te != nil && types.Identical(t, te) && w.s.info.Types[e].IsValue() && !w.s.info.Types[e].IsNil() {
			w.put("unwrap", call, "%s", w.src(e))
		}
	}
}

// clocks looks at the clock anew where a time was passed on that had been
// looked at before: a lease that counts from after its statement is too long. What is called
// now has only just been looked at.
func clocks(w *walk, n, parent ast.Node) {
	id, ok := n.(*ast.Ident)
	if !ok {
		return
	}
	v, ok := w.s.info.Uses[id].(*types.Var)
	if !ok || v.IsField() || v.Type().String() != "time.Time" || id.Name == "now" {
		return
	}
	switch p := parent.(type) {
	case *ast.AssignStmt:
		if slices.Contains(p.Lhs, ast.Expr(id)) {
			return
		}
	case *ast.CallExpr, *ast.KeyValueExpr, *ast.ReturnStmt:
	default:
		return
	}
	w.put("clock", id, "%s.Add(time.Since(%[1]s))", id.Name)
}
