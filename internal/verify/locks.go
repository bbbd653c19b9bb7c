package verify

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// The model of a lock is a readers-writer lock; one that readers do not take is
// a mutex. It has three operations. A grant is somewhere between the call of an
// acquire and its return. A release that the server confirmed is somewhere
// between its call and its return. Every other hold ends by itself, at any time
// after its holder last had reason to say that it held the lock, or never: what
// is not known is no violation.

type lockOp struct {
	hold   *Hold
	action byte // 'a'cquire, 'r'elease, 'e'nd
}

// A lockState has the holders of the lock, and the fence that was granted last.
type lockState struct {
	writer  string
	readers string // ids, sorted, each with a space after it
	fence   int64
}

func (s lockState) step(op lockOp, fences bool) (bool, lockState) {
	h := op.hold
	switch {
	case op.action != 'a' && h.Shared:
		rest := strings.Replace(s.readers, h.ID+" ", "", 1)
		ok := rest != s.readers
		s.readers = rest
		return ok, s
	case op.action != 'a':
		ok := s.writer == h.ID
		s.writer = ""
		return ok, s
	case s.writer != "":
		return false, s
	case h.Shared:
		ids := append(strings.Fields(s.readers), h.ID)
		slices.Sort(ids)
		s.readers = strings.Join(ids, " ") + " "
		return true, s
	case s.readers != "":
		return false, s
	}
	s.writer = h.ID
	if fences && h.Fence > 0 {
		if h.Fence <= s.fence {
			return false, s
		}
		s.fence = h.Fence
	}
	return true, s
}

func lockModel(init lockState, fences bool) porcupine.Model {
	return porcupine.Model{
		Init: func() any { return init },
		Step: func(state, input, _ any) (bool, any) {
			return state.(lockState).step(input.(lockOp), fences)
		},
		DescribeOperation: func(input, _ any) string {
			op := input.(lockOp)
			what := "lock"
			if op.hold.Shared {
				what = "read lock"
			}
			text := map[byte]string{'a': "", 'r': "un", 'e': "(lost) un"}[op.action] + what + " " + op.hold.ID
			if op.action == 'a' && op.hold.Fence > 0 {
				text += fmt.Sprintf(" #%d", op.hold.Fence)
			}
			return text
		},
		DescribeState: func(state any) string {
			s := state.(lockState)
			if s.writer == "" && s.readers == "" {
				return "free"
			}
			return strings.TrimSpace(s.writer + " " + s.readers)
		},
	}
}

const (
	// pieceSize is how many operations are judged at once, at least.
	pieceSize = 200
	// pieceTime is how long that may take.
	pieceTime = 20 * time.Second
	// blameTime is how long it may take to try an explanation of what is wrong.
	blameTime = 2 * time.Second
)

// A piece is a part of a target's history that begins with the lock in a known
// state.
type piece struct {
	init lockState
	ops  []porcupine.Operation
}

// checkLocks judges the locks of each target: who held them, and then, if that
// was in order, the fences.
func checkLocks(hist *History) []Result {
	results := map[string]*Result{
		KindMutex: {Kind: KindMutex}, KindReadersWriter: {Kind: KindReadersWriter}, KindFence: {Kind: KindFence}}
	for i, target := range hist.Targets {
		if target.Places > 0 {
			continue
		}
		ops := hist.lockOps(i)
		kind := results[target.Kind()]
		kind.Checked += len(ops)
		for _, h := range hist.holds(i) {
			if h.Fence < 0 || h.Fenced && !h.Shared && h.Fence == 0 {
				results[KindFence].find(target, h.Acquire.Return, "it was granted without the fence that was asked for: %v", h)
			}
		}
		judge := func(r *Result, fences bool) bool {
			found := len(r.Findings)
			for _, p := range pieces(hist, i, ops, pieceSize) {
				r.Pieces++
				switch porcupine.CheckOperationsTimeout(lockModel(p.init, fences), p.ops, pieceTime) {
				case porcupine.Unknown:
					r.Unknown++
				case porcupine.Illegal:
					at, text := blame(p, fences)
					r.find(target, at, "no order of these operations is that of a lock: %s", text)
				}
			}
			return found == len(r.Findings)
		}
		if judge(kind, false) {
			for _, op := range ops {
				if in := op.Input.(lockOp); in.action == 'a' && in.hold.Fence > 0 {
					results[KindFence].Checked++
				}
			}
			judge(results[KindFence], true)
		}
	}
	return []Result{*results[KindMutex], *results[KindReadersWriter], *results[KindFence]}
}

// lockOps are the operations on a target.
func (hist *History) lockOps(target int) (ops []porcupine.Operation) {
	add := func(h *Hold, action byte, s Span) {
		op := lockOp{hold: h, action: action}
		ops = append(ops, porcupine.Operation{ClientId: h.Client, Input: op, Call: s.Call, Return: s.Return})
	}
	for _, h := range hist.holds(target) {
		add(h, 'a', h.Acquire)
		if h.Kept() {
			add(h, 'r', h.Release)
		} else {
			add(h, 'e', Span{max(hist.certain(h), h.Acquire.Call), never})
		}
	}
	return ops
}

// pieces cuts a target's history where its state is known for certain: inside of
// an exclusive hold that was kept, from the return of its acquire to the call of
// its release. What is under way there can only be on one side: a grant of
// another after it, and the end of another before it, since nobody else holds
// the lock at that moment. Only a hold that was granted about then and may have
// been lost at once could be on either side, so no cut is made there.
func pieces(hist *History, target int, ops []porcupine.Operation, size int) (all []piece) {
	var uncertain []Span
	var cuts []*Hold
	for _, h := range hist.holds(target) {
		if !h.Kept() {
			uncertain = append(uncertain, h.Acquire)
		} else if !h.Shared && h.Release.Call-h.Acquire.Return >= 2 {
			cuts = append(cuts, h)
		}
	}
	slices.SortFunc(cuts, func(a, b *Hold) int { return cmp.Compare(a.Acquire.Return, b.Acquire.Return) })
	rest := slices.Clone(ops)
	slices.SortStableFunc(rest, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var init lockState
	for _, h := range cuts {
		if len(rest) < 2*size {
			break
		}
		at := h.Acquire.Return + (h.Release.Call-h.Acquire.Return)/2
		if slices.ContainsFunc(uncertain, func(s Span) bool { return s.Call <= at && at <= s.Return }) {
			continue
		}
		if sort.Search(len(rest), func(i int) bool { return rest[i].Call >= at }) < size {
			continue
		}
		p := piece{init: init}
		var after []porcupine.Operation
		for _, op := range rest {
			in := op.Input.(lockOp)
			acquired := in.action == 'a'
			switch {
			case op.Return <= at:
				p.ops = append(p.ops, op)
			case op.Call >= at:
				after = append(after, op)
			case acquired || in.hold.ID == h.ID:
				op.Call = at
				after = append(after, op)
			default:
				op.Return = at
				p.ops = append(p.ops, op)
			}
		}
		init = lockState{writer: h.ID, fence: init.fence}
		for _, op := range p.ops {
			in := op.Input.(lockOp)
			if in.action == 'a' {
				init.fence = max(init.fence, in.hold.Fence)
			}
		}
		all, rest = append(all, p), after
	}
	return append(all, piece{init, rest})
}

// blame finds a short part of an illegal piece that is illegal by itself: the
// operations that had begun when it first could not be explained any more.
func blame(p piece, fences bool) (at int64, text string) {
	ops := slices.Clone(p.ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Return, b.Return) })
	model := lockModel(p.init, fences)
	illegal := func(n int) bool { // what had returned by then, and the ends that this allows
		acquired := make(map[string]bool)
		var part []porcupine.Operation
		for i, op := range ops {
			in := op.Input.(lockOp)
			switch {
			case i <= n:
				acquired[in.hold.ID] = acquired[in.hold.ID] || in.action == 'a'
				part = append(part, op)
			case in.action != 'a' && acquired[in.hold.ID] || in.hold.ID == p.init.writer:
				op.Return = never
				part = append(part, op)
			}
		}
		return porcupine.CheckOperationsTimeout(model, part, blameTime) == porcupine.Illegal
	}
	n := min(sort.Search(len(ops), illegal), len(ops)-1)
	last := ops[n]
	var about []string
	for _, op := range ops[max(0, n-5) : n+1] {
		about = append(about, fmt.Sprintf("%s [%s, %s]", model.DescribeOperation(op.Input, nil), seconds(op.Call, ops[0].Call), seconds(op.Return, ops[0].Call)))
	}
	return last.Return, strings.Join(about, "; ")
}
