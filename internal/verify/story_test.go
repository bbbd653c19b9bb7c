package verify

import (
	"fmt"
)

// A story builds a history. Its times are milliseconds.
type story struct {
	*History
	fence int64
}

func newStory() *story {
	return &story{History: &History{
		Targets: []Target{{Name: "mutex", Key: 1}, {Name: "shared", Key: 2, Shared: true}, {Name: "places", Key: 3, Places: 2}},
		Clocks:  []Offset{{1000 * sec, 1000 * sec}}, // the server's clock is that much ahead
		Log:     make(map[string]string),
		End:     1000 * sec,
	}}
}

// hold adds one that was granted at about acquired, and released at about
// released: both calls took 2 ms.
func (s *story) hold(target int, acquired, released int64) *Hold {
	s.fence++
	n := len(s.Holds)
	h := &Hold{ID: fmt.Sprintf("w%d.%d-%d", n, n, n), Proc: fmt.Sprintf("w%d.%d", n, n), Client: n, Label: fmt.Sprintf("w%d.%d.%d.0", n, n, n),
		Single: true, Wait: true, Target: target, Fenced: true, Fence: s.fence, Pid: 100 + n, Outcome: OK, Released: OK}
	h.Acquire = Span{(acquired - 1) * ms, (acquired + 1) * ms}
	h.Held = []Span{{(acquired + 2) * ms, (acquired + 2) * ms}}
	h.Release = Span{(released - 1) * ms, (released + 1) * ms}
	s.Holds = append(s.Holds, h)
	return h
}

func (s *story) reader(acquired, released int64) *Hold {
	h := s.hold(shared, acquired, released)
	h.Shared, h.Fenced, h.Fence = true, false, 0
	return h
}

// lost makes h one that was never released, and of which its holder said at the
// times given that it held it.
func lost(h *Hold, said ...int64) *Hold {
	h.Release, h.Released, h.Held = Span{}, Pending, nil
	for _, at := range said {
		h.Held = append(h.Held, Span{at * ms, at * ms})
	}
	return h
}

func (s *story) fault(f Fault, from, to int64) {
	f.Span = Span{from * ms, to * ms}
	s.Faults = append(s.Faults, f)
}

// stall is one of a process, or of the server.
func (s *story) stall(proc string, from, to int64) {
	s.Stalls = append(s.Stalls, Stall{Span{from * ms, to * ms}, proc})
}

// overtaken are a waiter that came first, and one that was served before it.
func (s *story) overtaken(firstCame, secondCame int64) (first, second *Hold) {
	first, second = s.hold(mutex, 1200, 1300), s.hold(mutex, 1000, 1100)
	first.Acquire.Call, second.Acquire.Call = firstCame*ms, secondCame*ms
	first.Fence, second.Fence = 2, 1
	return first, second
}

// gaveUp is that another waiter on h's session gave up.
func (s *story) gaveUp(h *Hold, at int64) {
	w := s.hold(shared, at, 0)
	w.Label, w.Outcome = h.Label, Refused
}

// seen is that the server showed h's lock.
func (s *story) seen(h *Hold, at int64) {
	s.Seen = append(s.Seen, Sighting{Span: Span{at * ms, at*ms + 1}, Target: h.Target, Label: h.Label, Pid: h.Pid, Shared: h.Shared})
}

func (s *story) write(h *Hold, at int64, w Write) {
	w.Span = Span{at * ms, (at + 1) * ms}
	if w.Fence == 0 {
		w.Fence = h.Fence
	}
	h.Writes = append(h.Writes, w)
	if w.Outcome == OK {
		s.Log[w.ID] = w.Met
	}
}

// row is the audit's of h.
func (s *story) row(h *Hold) *AuditRow {
	h.Audited = true
	s.Audit = append(s.Audit, AuditRow{ID: int64(len(s.Audit) + 1), Target: h.Target, Owner: h.ID, Shared: h.Shared, Fence: h.Fence, TTL: h.TTL,
		Acquired: h.Acquire.Call + ms + 1000*sec, Released: h.Release.Call + ms + 1000*sec, Reason: "released", BackendPid: h.Pid})
	return &s.Audit[len(s.Audit)-1]
}
