package verify

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/anishathalye/porcupine"
)

// The model of a register: it has a value and a fence. A claim with a fence that
// is not lower raises the fence and shows the value; a write replaces the value
// and shows what it replaced; with a lower fence both are refused.

type registerState struct {
	fence int64
	value string
}

func registerModel(init registerState) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return init },
		Step: func(state, input, _ any) (bool, any) {
			s, w := state.(registerState), input.(Write)
			if w.Outcome == Refused {
				return w.Fence < s.fence, s
			}
			ok := w.Fence >= s.fence && w.Met == s.value
			s.fence = w.Fence
			if !w.Claim {
				s.value = w.ID
			}
			return ok, s
		},
		DescribeOperation: func(input, _ any) string { return input.(Write).String() },
		DescribeState: func(state any) string {
			s := state.(registerState)
			return fmt.Sprintf("%q #%d", s.value, s.fence)
		},
	}
}

func (w Write) String() string {
	what := "write " + w.ID
	if w.Claim {
		what = "claim"
	}
	return fmt.Sprintf("%s #%d: %s, met %q", what, w.Fence, w.Outcome, w.Met)
}

// settled are the operations on a register whose outcome is known. One that
// never returned, or with an error, was accepted if the log has it; then it may
// have been at any time up to a margin after its process or the server had
// gone. If the log does not have it, it did nothing that could be seen: then
// also a success that was reported while the server went down is none.
func (hist *History) settled(target int) (ops []porcupine.Operation) {
	for _, h := range hist.Holds {
		if h.Target != target {
			continue
		}
		for _, w := range h.Writes {
			met, logged := hist.Log[w.ID]
			switch {
			case w.Outcome == Refused:
			case !logged && (w.Outcome != OK || hist.restarting(w.Span)):
				continue
			case w.Outcome != OK:
				end := cmp.Or(w.Return, hist.look().killed[h.Proc], hist.End)
				w.Outcome, w.Met, w.Return = OK, met, hist.healed(h, end+int64(margin))
			}
			ops = append(ops, porcupine.Operation{ClientId: h.Client, Input: w, Call: w.Call, Return: w.Return})
		}
	}
	return ops
}

// restarting reports whether the server went down about then.
func (hist *History) restarting(s Span) bool {
	return slices.ContainsFunc(hist.look().ends, func(f Fault) bool {
		return f.Call <= s.Return+int64(margin) && s.Call <= f.Return
	})
}

func checkRegister(hist *History) Result {
	r := Result{Kind: KindRegister}
	for i, target := range hist.Targets {
		ops := hist.settled(i)
		r.Checked += len(ops)
		for _, p := range registerPieces(ops, pieceSize) {
			r.Pieces++
			switch porcupine.CheckOperationsTimeout(registerModel(p.init), p.ops, pieceTime) {
			case porcupine.Unknown:
				r.Unknown++
			case porcupine.Illegal:
				r.find(target, p.ops[len(p.ops)-1].Return, "the register took a write that its fence should have refused, or refused one that it should have taken, among %d operations from %v to %v",
					len(p.ops), p.ops[0].Input, p.ops[len(p.ops)-1].Input)
			}
		}
		for _, h := range hist.holds(i) {
			logged(&r, hist, target, h)
			guarded(&r, hist, target, h)
		}
	}
	return r
}

// logged checks that the register's log has what a holder was told.
func logged(r *Result, hist *History, target Target, h *Hold) {
	for _, w := range h.Writes {
		met, ok := hist.Log[w.ID]
		switch {
		case w.Outcome == OK && !ok && !hist.restarting(w.Span):
			r.find(target, w.Return, "what the register took is not in its log: %v; it was %v", h, w)
		case w.Outcome == OK && ok && met != w.Met:
			r.find(target, w.Return, "by the register's log it met %q: %v; it was %v", met, h, w)
		case w.Outcome == Refused && ok:
			r.find(target, w.Return, "what the register refused is in its log: %v; it was %v", h, w)
		}
	}
}

// guarded checks that the lock kept others from the register: nobody wrote
// between a holder's claim and its write, and nobody had raised the fence above
// that of a holder that held the lock for certain. Of a write whose outcome its
// holder did not live to know, or was not told, the log says it.
func guarded(r *Result, hist *History, target Target, h *Hold) {
	claimed := ""
	certain := hist.certain(h)
	for i, w := range h.Writes {
		r.Checked++
		if met, ok := hist.Log[w.ID]; ok && (w.Outcome == Pending || w.Outcome == Failed) {
			w.Outcome, w.Met, w.Return = OK, met, cmp.Or(w.Return, w.Call)
		}
		switch {
		case w.Outcome == Refused && w.Return < certain:
			r.find(target, w.Return, "a holder was fenced off: %v; it was %v", h, w)
		case w.Outcome != OK:
		case w.Claim:
			claimed = w.Met
		case i > 0 && h.Writes[i-1].Claim && h.Writes[i-1].Outcome == OK && w.Met != claimed:
			r.find(target, w.Return, "somebody wrote %q between a holder's claim, which met %q, and its write: %v", w.Met, claimed, h)
		}
	}
}

type registerPiece struct {
	init registerState
	ops  []porcupine.Operation
}

// registerPieces cuts where nothing is under way and the last operation that was
// accepted is a write that no other accepted one overlaps: that write is the
// state.
func registerPieces(ops []porcupine.Operation, size int) (all []registerPiece) {
	ops = slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var p registerPiece
	var last Write   // the accepted operation that returned last
	var latest int64 // when it returned
	alone := false
	var busy int64 // when all that was called has returned
	for _, op := range ops {
		if len(p.ops) >= size && busy < op.Call && alone && !last.Claim {
			all = append(all, p)
			p = registerPiece{init: registerState{last.Fence, last.ID}}
		}
		p.ops = append(p.ops, op)
		busy = max(busy, op.Return)
		w := op.Input.(Write)
		if w.Outcome != OK {
			continue
		}
		alone = op.Call > latest
		if op.Return > latest {
			last, latest = w, op.Return
		}
	}
	if len(p.ops) > 0 {
		all = append(all, p)
	}
	return all
}
