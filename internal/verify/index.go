package verify

// An index finds quickly what a history has of a session.
type index struct {
	ends   []Fault            // that end every session
	endsOf map[string][]Fault // that end one
	cutsOf map[string][]Fault // of the network, by session
	stalls []Fault            // of everything, or of the statements of audited locks
	killed map[string]int64   // when a process had been killed
	grants map[string]int64   // when a session granted its last lock
	gaveUp map[string][]int64 // when waiters on a session did

	stalled map[string][]Span // when a process or the server had a stall, as far as calm was asked
}

// look is the history's index, made on first use.
func (hist *History) look() *index {
	if hist.index != nil {
		return hist.index
	}
	x := &index{endsOf: make(map[string][]Fault), cutsOf: make(map[string][]Fault), killed: make(map[string]int64), grants: make(map[string]int64),
		gaveUp: make(map[string][]int64), stalled: make(map[string][]Span)}
	for _, f := range hist.Faults {
		switch {
		case f.Ends() && f.Label == "":
			x.ends = append(x.ends, f)
		case f.Ends():
			x.endsOf[f.Label] = append(x.endsOf[f.Label], f)
		}
		if f.Kind == FaultCut {
			x.cutsOf[f.Label] = append(x.cutsOf[f.Label], f)
		}
		if f.stalls() || f.Kind == FaultLock {
			x.stalls = append(x.stalls, f)
		}
	}
	for _, p := range hist.Procs {
		if p.Killed != 0 {
			x.killed[p.Name] = p.Killed
		}
	}
	for _, h := range hist.Holds {
		if h.Outcome == OK {
			x.grants[h.Label] = max(x.grants[h.Label], h.Acquire.Return)
		} else if h.Wait {
			x.gaveUp[h.Label] = append(x.gaveUp[h.Label], h.Acquire.Return)
		}
	}
	hist.index = x
	return x
}

const never = int64(1) << 62

// touched is when the first fault that may have ended h's session over its head
// began, or never. A backend that was told to end may still grant: so what began
// soon after the fault counts as well.
func (hist *History) touched(h *Hold) (at int64) {
	at = never
	x := hist.look()
	for _, faults := range [][]Fault{x.ends, x.endsOf[h.Label]} {
		for _, f := range faults {
			if f.touches(h) && f.Return+int64(margin) >= h.Acquire.Call {
				at = min(at, f.Call)
			}
		}
	}
	return at
}

// certain returns until when h was held for certain: the latest time at which
// its holder had reason to say so; 0 is never. A lock that was kept was held
// until Release was called. Otherwise the holder's own word counts, up to the
// time when its session may have been ended by force.
func (hist *History) certain(h *Hold) (until int64) {
	if h.Kept() {
		return h.Release.Call
	}
	limit := hist.touched(h)
	for _, c := range h.Held {
		if c.Return < limit {
			until = max(until, c.Call)
		}
	}
	return until
}

// healed returns at, or a later time if h's network was down then, or the
// server stood still: the server learns of nothing meanwhile, and statements
// that were held up restart a lease when they arrive. So does a statement that
// had to wait for the audit's table.
func (hist *History) healed(h *Hold, at int64) int64 {
	late := int64(margin) + int64(h.TTL)
	for changed := true; changed; {
		changed = false
		for _, faults := range [][]Fault{hist.look().cutsOf[h.Label], hist.look().stalls} {
			for _, f := range faults {
				if end := f.Return + late; f.touches(h) && f.Call <= at && end > at {
					at, changed = end, true
				}
			}
		}
	}
	return at
}
