package verify

import (
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	mutex  = 0 // targets of the histories below
	shared = 1
	places = 2
	ms     = int64(time.Millisecond)
	sec    = int64(time.Second)
)

// A plant is a history with one violation.
type plant struct {
	name string
	want string // the kind that must be found, and no other
	tell func(s *story)
}

// A sane is a history that is in order.
type sane struct {
	name string
	tell func(s *story)
}

// planted are histories with one violation each.
var planted = []plant{
	{"two holders at once", KindMutex, func(s *story) {
		s.hold(mutex, 100, 200)
		s.hold(mutex, 150, 250)
	}},
	{"three hold two places", KindPlaces, func(s *story) {
		s.hold(places, 100, 200)
		s.hold(places, 120, 0)
		lost(s.Holds[1], 180)
		s.hold(places, 150, 250)
	}},
	{"a holder that was killed had said that it holds what another one has", KindMutex, func(s *story) {
		lost(s.hold(mutex, 100, 0), 160)
		s.hold(mutex, 150, 250)
	}},
	{"the holder of a lease says that it holds it after another was granted it", KindMutex, func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110, 1300)
		h.TTL = time.Second
		s.hold(mutex, 1200, 1250)
	}},
	{"a pause is no excuse for what is said after it", KindMutex, func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110, 3000)
		h.TTL = time.Second
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 2900)
		s.hold(mutex, 1300, 1350)
	}},
	{"before the session was ended it was still held", KindMutex, func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 160)
		s.hold(mutex, 150, 250)
		s.fault(Fault{Kind: FaultTerminate, Label: h.Label}, 170, 171)
	}},
	{"the end of another session is no excuse", KindMutex, func(s *story) {
		lost(s.hold(mutex, 100, 0), 160)
		h := s.hold(mutex, 150, 250)
		s.fault(Fault{Kind: FaultTerminate, Label: h.Label}, 120, 121)
	}},
	{"the end of another session of the same pool is no excuse", KindMutex, func(s *story) {
		a := lost(s.hold(mutex, 100, 0), 160)
		b := s.hold(mutex, 150, 250)
		a.Label, b.Label, a.Single, b.Single = "pool", "pool", false, false
		s.fault(Fault{Kind: FaultTerminate, Label: "pool", Pid: b.Pid}, 120, 121)
	}},
	{"a release that was confirmed proves the hold, whatever was done to it", KindMutex, func(s *story) {
		s.hold(mutex, 100, 200)
		s.hold(mutex, 150, 250)
		s.fault(Fault{Kind: FaultRestart}, 110, 120)
	}},
	{"a reader with a writer", KindReadersWriter, func(s *story) {
		s.reader(100, 200)
		s.hold(shared, 150, 160)
	}},
	{"a writer with a reader", KindReadersWriter, func(s *story) {
		s.hold(shared, 100, 200)
		s.reader(150, 160)
	}},
	{"two writers where readers may be", KindReadersWriter, func(s *story) {
		s.reader(10, 20)
		s.hold(shared, 100, 200)
		s.hold(shared, 150, 160)
	}},
	{"a fence that is lower than the one before", KindFence, func(s *story) {
		a, b := s.hold(mutex, 100, 200), s.hold(mutex, 300, 400)
		a.Fence, b.Fence = 8, 7
	}},
	{"the same fence twice", KindFence, func(s *story) {
		s.hold(mutex, 100, 200)
		s.hold(mutex, 300, 400).Fence--
	}},
	{"a fence that is lower than that of a hold which was lost", KindFence, func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 101)
		s.hold(mutex, 300, 400).Fence = h.Fence
	}},
	{"the order of two that waited together is that of their holds", KindFence, func(s *story) {
		a, b := s.hold(mutex, 100, 200), s.hold(mutex, 250, 400)
		b.Acquire.Call = a.Acquire.Call // overlapping: only the lock's life shows which came first
		a.Fence, b.Fence = 8, 7
	}},
	{"fences run back in a crash", KindFence, func(s *story) {
		s.hold(mutex, 100, 200)
		s.fault(Fault{Kind: FaultRestart, Detail: detailImmediate}, 210, 250)
		s.hold(mutex, 300, 400).Fence--
	}},
	{"fences run back in a clean restart", KindFence, func(s *story) {
		s.hold(mutex, 100, 200)
		s.fault(Fault{Kind: FaultRestart, Detail: detailFast}, 210, 250)
		s.hold(mutex, 300, 400).Fence--
	}},
	{"a late write that was not refused", KindRegister, func(s *story) {
		a := lost(s.hold(mutex, 100, 0), 101)
		s.write(a, 110, Write{ID: "a", Outcome: OK})
		b := s.hold(mutex, 300, 400)
		s.write(b, 310, Write{ID: "b", Outcome: OK, Met: "a"})
		s.write(a, 450, Write{ID: "late", Outcome: OK, Met: "b"})
	}},
	{"a write that was lost", KindRegister, func(s *story) {
		s.write(s.hold(mutex, 100, 200), 110, Write{ID: "a", Outcome: OK})
		s.write(s.hold(mutex, 300, 400), 310, Write{ID: "b", Outcome: OK, Met: ""})
	}},
	{"a write that was refused for nothing", KindRegister, func(s *story) {
		a := lost(s.hold(mutex, 100, 200), 101)
		s.write(a, 150, Write{ID: "a", Outcome: Refused})
	}},
	{"a holder that holds the lock is fenced off", KindRegister, func(s *story) {
		a := s.hold(mutex, 100, 200)
		b := lost(s.hold(mutex, 10, 0), 12) // unfenced by its look, but it had written
		s.write(b, 20, Write{ID: "b", Outcome: OK})
		unfenced(a, b)
		s.write(a, 150, Write{ID: "a", Fence: 1, Outcome: Refused})
	}},
	{"somebody writes between a claim and its write, under the same fence", KindRegister, func(s *story) {
		a, b := s.hold(mutex, 100, 200), lost(s.hold(mutex, 50, 0), 52)
		unfenced(a, b) // so that the lock itself is in order
		s.write(a, 110, Write{ID: "c", Claim: true, Fence: 5, Outcome: OK})
		s.write(b, 120, Write{ID: "b", Fence: 5, Outcome: OK})
		s.write(a, 130, Write{ID: "a", Fence: 5, Outcome: OK, Met: "b"})
	}},
	{"a lock stays after its release", KindNobody, func(s *story) {
		s.seen(s.hold(mutex, 100, 200), 202)
	}},
	{"a pool leaves a lock on the session that it waited on", KindNobody, func(s *story) {
		h := s.hold(mutex, 1000, 1100)
		h.Single = false
		other := *h
		other.Pid++
		s.seen(&other, 1002+margin.Milliseconds())
	}},
	{"a lock stays after an acquire that failed", KindNobody, func(s *story) {
		h := s.hold(mutex, 100, 200)
		h.Outcome, h.Release = Failed, Span{}
		s.seen(h, 102+margin.Milliseconds())
	}},
	{"a lock that was not granted is there all the same", KindNobody, func(s *story) {
		h, next := s.hold(mutex, 100, 0), s.hold(shared, 300, 400)
		h.Outcome, h.Release, h.Wait, next.Label = Refused, Span{}, false, h.Label
		s.seen(h, 110)
	}},
	{"a lock that a waiter gave up is there after its last wait", KindNobody, func(s *story) {
		h, next := s.hold(mutex, 100, 0), s.hold(shared, 3000, 3100)
		h.Outcome, h.Release, next.Label = Refused, Span{}, h.Label
		s.seen(h, 102+oneWait.Milliseconds())
	}},
	{"a lock outlives the process that was killed", KindNobody, func(s *story) {
		h := lost(s.hold(mutex, 100, 0))
		s.Procs = append(s.Procs, Proc{h.Proc, 150 * ms})
		s.seen(h, 151+margin.Milliseconds())
	}},
	{"a lock outlives the lease of the process that was stopped", KindNobody, func(s *story) {
		h := s.hold(mutex, 100, 20_000)
		h.TTL, h.Released = time.Second, Lost
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 15_000)
		s.seen(h, 121+1000+margin.Milliseconds())
	}},
	{"a lock is held by a session that is nobody's", KindNobody, func(s *story) {
		s.seen(&Hold{Label: "stranger", Target: mutex}, 100)
	}},
	{"a session that holds nothing is told that it does", KindNobody, func(s *story) {
		h := s.hold(mutex, 100, 0)
		h.Outcome, h.Release = Already, Span{}
	}},
	{"the second to come is served first", KindLine, func(s *story) {
		s.overtaken(100, 400)
	}},
	{"the second to come is served first, long after a waiter on the first one's session gave up", KindLine, func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.gaveUp(first, 99-oneWait.Milliseconds())
	}},
	{"a reader is served before the writer that waits", KindLine, func(s *story) {
		w, r := s.hold(shared, 1200, 1300), s.reader(1000, 1100)
		w.Acquire.Call, r.Acquire.Call = 100*ms, 400*ms
	}},
	{"the audit's intervals overlap", KindAudit, func(s *story) {
		a, b := s.hold(mutex, 100, 200), s.hold(mutex, 300, 400)
		s.row(a).Released += 150 * ms
		s.row(b)
		a.Released = Failed // so that only the overlap is wrong
	}},
	{"a writer's interval overlaps the first of two readers'", KindAudit, func(s *story) {
		a, b, w := s.reader(100, 500), s.reader(110, 120), s.hold(shared, 600, 700)
		row := s.row(a)
		row.Released += 150 * ms
		s.row(b)
		s.row(w)
		a.Released = Failed
	}},
	{"the audit has no row", KindAudit, func(s *story) {
		s.hold(mutex, 100, 200).Audited = true
	}},
	{"the audit has a row of nobody", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Owner = "nobody"
		s.Holds[0].Audited = false
	}},
	{"the audit has another fence", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Fence++
	}},
	{"the audit's hold began before it was asked for", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Acquired -= 10 * ms
	}},
	{"the audit's hold ended after its release had returned", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Released += 10 * ms
	}},
	{"the audit's row is open still", KindAudit, func(s *story) {
		h := s.hold(mutex, 100, 200)
		h.Released = Lost
		row := s.row(h)
		row.Released, row.Reason = 0, ""
	}},
	{"the audit says of a release that the holder was killed", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Reason = "killed"
	}},
}

// judged are the kinds that are found in a story.
func judged(tell func(*story)) (kinds []string, all []Finding) {
	s := newStory()
	tell(s)
	all = Judge(s.History).Findings()
	for _, f := range all {
		kinds = append(kinds, f.Kind)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds), all
}

// TestPlanted: each violation is found, and found to be what it is.
func TestPlanted(t *testing.T) {
	seen := make(map[string]bool)
	for _, p := range slices.Concat(planted, plantedStalls, plantedEdges) {
		got, all := judged(p.tell)
		if want := []string{p.want}; !slices.Equal(got, want) {
			t.Errorf("%s: got the kinds %q, want %q: %+v", p.name, got, want, all)
		}
		seen[p.want] = true
	}
	for _, kind := range []string{KindMutex, KindReadersWriter, KindFence, KindRegister, KindNobody, KindLine, KindAudit, KindSpared} {
		if !seen[kind] {
			t.Errorf("no history has a violation of %q", kind)
		}
	}
}

// sound are histories that look odd and are in order.
var sound = []sane{
	{"two hold two places, and a third when one was lost", func(s *story) {
		s.hold(places, 100, 200)
		lost(s.hold(places, 120, 0), 140)
		s.hold(places, 150, 250)
	}},
	{"one after the other", func(s *story) {
		s.hold(mutex, 100, 200)
		s.hold(mutex, 201, 300)
		s.row(s.hold(mutex, 400, 500))
	}},
	{"readers together", func(s *story) {
		s.reader(100, 300)
		s.reader(150, 250)
		s.hold(shared, 400, 500)
		s.reader(600, 700)
	}},
	{"a holder is told late that its session was ended", func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110, 400)
		s.fault(Fault{Kind: FaultTerminate, Label: h.Label}, 120, 121)
		s.hold(mutex, 150, 250)
	}},
	{"a session was ended before its acquire returned", func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110, 400)
		s.fault(Fault{Kind: FaultCut, Detail: detailClose, Label: h.Label}, 90, 91)
		s.hold(mutex, 103, 250)
		s.row(h).Owner = h.ID
		s.Audit = nil // the row went with the session
	}},
	{"a holder was paused past its lease, and learns of it", func(s *story) {
		h := s.hold(mutex, 100, 3000)
		h.TTL, h.Released, h.Ended, h.Held = time.Second, Lost, 2950*ms, []Span{{101 * ms, 2940 * ms}} // stopped inside of Err
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 2900)
		s.write(h, 2951, Write{ID: "late", Outcome: Refused})
		b := s.hold(mutex, 1300, 1350)
		s.write(b, 1310, Write{ID: "b", Claim: true, Outcome: OK})
		s.seen(h, 1050)
		s.seen(b, 1320)
	}},
	{"a waiter gave up, and its last wait in the server was granted and undone", func(s *story) {
		h, next := s.hold(mutex, 100, 0), s.hold(shared, 3000, 3100)
		h.Outcome, h.Release, next.Label = Refused, Span{}, h.Label
		s.seen(h, 100+oneWait.Milliseconds())
	}},
	{"a holder was killed, and another came", func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110)
		s.Procs = append(s.Procs, Proc{h.Proc, 150 * ms})
		s.seen(h, 152)
		s.hold(mutex, 160, 250)
	}},
	{"a pool waits on another session than the one that it holds on", func(s *story) {
		h := s.hold(mutex, 1000, 1100)
		h.Acquire.Call, h.Single = 100*ms, false
		other := *h
		other.Pid++
		s.fault(Fault{Kind: FaultCut, Detail: detailHalfOpen, Label: h.Label, Pid: other.Pid}, 900, 950)
		s.seen(&other, 950)
		s.seen(h, 1050)
	}},
	{"a write of a process that was killed, which the log has", func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110)
		s.Procs = append(s.Procs, Proc{h.Proc, 150 * ms})
		h.Writes = []Write{{Span: Span{Call: 149 * ms}, ID: "a", Fence: h.Fence}}
		s.Log["a"] = ""
		b := s.hold(mutex, 160, 250)
		s.write(b, 170, Write{ID: "b", Outcome: OK, Met: "a"})
	}},
	{"a write of a process that was killed, which nobody saw", func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110)
		h.Writes = []Write{{Span: Span{Call: 149 * ms}, ID: "a", Fence: h.Fence}}
		b := s.hold(mutex, 160, 250)
		s.write(b, 170, Write{ID: "b", Outcome: OK, Met: ""})
	}},
	{"a lease that the network held up", func(s *story) {
		h := s.hold(mutex, 100, 20_000)
		h.TTL, h.Released = time.Second, Lost
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 15_000)
		s.fault(Fault{Kind: FaultCut, Detail: detailHalfOpen, Label: h.Label}, 110, 3000)
		s.seen(h, 3000+900+margin.Milliseconds())
	}},
	{"the second to come is served first after a fault", func(s *story) {
		a, _ := s.overtaken(100, 400)
		s.fault(Fault{Kind: FaultTerminate, Label: a.Label}, 500, 501)
	}},
	{"the second to come is served first after a fault of the pool's session with the ticket", func(s *story) {
		a, _ := s.overtaken(100, 400)
		a.Single = false
		s.fault(Fault{Kind: FaultCut, Detail: detailHalfOpen, Label: a.Label, Pid: a.Pid + 1}, 450, 501)
	}},
	{"two waiters that came almost at once", func(s *story) {
		s.overtaken(300, 400)
	}},
	{"the audit's readers overlap", func(s *story) {
		s.row(s.reader(100, 300))
		s.row(s.reader(150, 250))
		s.row(s.hold(shared, 400, 500))
	}},
	{"a waiter comes to a session on which another has just given up", func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.gaveUp(first, 90)
	}},
	{"the second to come found the lock free before the first in line had taken it", func(s *story) {
		s.overtaken(100, 900)
	}},
	{"the audit closed the row of a holder that died", func(s *story) {
		h, b := lost(s.hold(mutex, 100, 0), 110), s.hold(mutex, 300, 400)
		s.Procs = append(s.Procs, Proc{h.Proc, 150 * ms})
		row := s.row(h)
		row.Reason, row.Released = "killed", b.Acquire.Call+ms+1000*sec
		s.row(b)
	}},
}

// TestSound: no false alarm.
func TestSound(t *testing.T) {
	for _, p := range slices.Concat(sound, soundStalls, soundEdges) {
		if got, all := judged(p.tell); len(got) > 0 {
			t.Errorf("%s: got %+v, want nothing", p.name, all)
		}
	}
}
