package verify

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/anishathalye/porcupine"
)

// simulate makes a history of a lock that works: clients that overlap, wait,
// lose locks, and are killed, and calls that take their time. The instants of
// grant and end are known, and the history has them within its spans.
func simulate(rnd *rand.Rand, grants int) *story {
	s := newStory()
	at, fence := int64(0), int64(0)
	var readers int64 // until when
	span := func(t int64) Span { return Span{t - 1 - rnd.Int64N(30), t + 1 + rnd.Int64N(30)} }
	for n := range grants {
		at += 1 + rnd.Int64N(10)
		h := &Hold{ID: fmt.Sprintf("h%d", n), Client: n % 5, Label: fmt.Sprint(n), Target: shared, Outcome: OK, Released: OK}
		h.Shared = rnd.IntN(2) == 0
		if !h.Shared {
			at = max(at, readers) + 1
		}
		end := at + 2 + rnd.Int64N(80)
		h.Acquire = span(at)
		if rnd.IntN(3) == 0 { // it had waited
			h.Acquire.Call -= rnd.Int64N(300)
		}
		h.Acquire.Return = min(h.Acquire.Return, end-1)
		if h.Shared {
			readers = max(readers, end)
		} else {
			fence++
			h.Fence = fence
			at = end
		}
		h.Release = Span{max(h.Acquire.Return, end-1-rnd.Int64N(30)), end + 1 + rnd.Int64N(30)}
		if rnd.IntN(8) == 0 { // it was lost: all that is known is that it was held for a while
			h.Release, h.Released = Span{}, Pending
			if said := h.Acquire.Return + rnd.Int64N(end-h.Acquire.Return); rnd.IntN(2) == 0 {
				h.Held = []Span{{said, said}}
			}
		}
		s.Holds = append(s.Holds, h)
	}
	return s
}

// TestPieces: a history that is cut in pieces is judged as it is when whole,
// whether it is in order or not.
func TestPieces(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	verdicts := make(map[porcupine.CheckResult]int)
	cuts := 0
	for n := range 400 {
		s := simulate(rnd, 60)
		if n%2 == 1 { // something is not as it was
			h := s.Holds[rnd.IntN(len(s.Holds))]
			switch rnd.IntN(3) {
			case 0:
				d := rnd.Int64N(400) - 200
				h.Acquire.Call, h.Acquire.Return = h.Acquire.Call+d, h.Acquire.Return+d
				h.Release.Call, h.Release.Return = h.Release.Call+d, h.Release.Return+d
			case 1:
				h.Held = append(h.Held, Span{h.Acquire.Return + 150, h.Acquire.Return + 150})
			case 2:
				h.Fence = max(0, h.Fence-1-rnd.Int64N(3))
			}
		}
		ops := s.lockOps(shared)
		for _, fences := range []bool{false, true} {
			whole := porcupine.CheckOperationsTimeout(lockModel(lockState{}, fences), ops, pieceTime)
			cut := porcupine.Ok
			all := pieces(s.History, shared, ops, 8)
			cuts += len(all) - 1
			total := 0
			for _, p := range all {
				total += len(p.ops)
				if porcupine.CheckOperationsTimeout(lockModel(p.init, fences), p.ops, pieceTime) != porcupine.Ok {
					cut = porcupine.Illegal
				}
			}
			if total != len(ops) {
				t.Fatalf("history %d: the pieces have %d operations, want %d", n, total, len(ops))
			}
			if cut != whole {
				t.Errorf("history %d, fences %v: in pieces it is %v, want %v", n, fences, cut, whole)
			}
			if n%2 == 0 && whole != porcupine.Ok {
				t.Errorf("history %d: a lock that works is judged %v", n, whole)
			}
			verdicts[whole]++
		}
	}
	if verdicts[porcupine.Ok] < 100 || verdicts[porcupine.Illegal] < 50 || cuts < 1000 {
		t.Errorf("too little was tried: %v, %d cuts", verdicts, cuts)
	}
}

// TestRegisterPieces does the same for registers.
func TestRegisterPieces(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 4))
	verdicts := make(map[porcupine.CheckResult]int)
	cuts := 0
	for n := range 400 {
		var ops []porcupine.Operation
		state := registerState{}
		at := int64(0)
		for i := range 80 {
			at += 1 + rnd.Int64N(20)
			w := Write{ID: fmt.Sprint(i), Claim: rnd.IntN(2) == 0, Fence: state.fence + rnd.Int64N(4) - 1, Outcome: OK, Met: state.value}
			if w.Fence < state.fence {
				w.Outcome, w.Met = Refused, ""
			} else {
				state.fence = w.Fence
				if !w.Claim {
					state.value = w.ID
				}
			}
			ops = append(ops, porcupine.Operation{ClientId: i % 5, Input: w, Call: at - 1 - rnd.Int64N(10), Return: at + 1 + rnd.Int64N(10)})
		}
		if n%2 == 1 {
			op := &ops[rnd.IntN(len(ops))]
			w := op.Input.(Write)
			if rnd.IntN(2) == 0 {
				w.Met = "nonsense"
			} else {
				w.Outcome = map[Outcome]Outcome{OK: Refused, Refused: OK}[w.Outcome]
			}
			op.Input = w
		}
		whole := porcupine.CheckOperationsTimeout(registerModel(registerState{}), ops, pieceTime)
		cut := porcupine.Ok
		all := registerPieces(ops, 8)
		cuts += len(all) - 1
		for _, p := range all {
			if porcupine.CheckOperationsTimeout(registerModel(p.init), p.ops, pieceTime) != porcupine.Ok {
				cut = porcupine.Illegal
			}
		}
		if cut != whole {
			t.Errorf("history %d: in pieces it is %v, want %v", n, cut, whole)
		}
		if n%2 == 0 && whole != porcupine.Ok {
			t.Errorf("history %d: a register that works is judged %v", n, whole)
		}
		verdicts[whole]++
	}
	if verdicts[porcupine.Ok] < 100 || verdicts[porcupine.Illegal] < 50 || cuts < 500 {
		t.Errorf("too little was tried: %v, %d cuts", verdicts, cuts)
	}
}
