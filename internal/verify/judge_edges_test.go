package verify

// plantedEdges are histories with one violation each, at the edges of what is looked at.
var plantedEdges = []plant{
	{"two holders for a microsecond", KindMutex, func(s *story) {
		a, b := s.hold(mutex, 100, 200), s.hold(mutex, 300, 400)
		a.Release.Call = b.Acquire.Return + 1000
		a.Release.Return = a.Release.Call + ms
	}},
	{"a reader beside a writer for a microsecond", KindReadersWriter, func(s *story) {
		a, b := s.hold(shared, 100, 200), s.reader(300, 400)
		a.Release.Call = b.Acquire.Return + 1000
		a.Release.Return = a.Release.Call + ms
	}},
	{"a third place for a microsecond", KindPlaces, func(s *story) {
		a, b := s.hold(places, 100, 200), s.hold(places, 300, 400)
		s.hold(places, 350, 390)
		a.Release.Call = b.Acquire.Return + 51*ms
		a.Release.Return = a.Release.Call + ms
	}},
	{"a fence was asked for, and there is none", KindFence, func(s *story) {
		s.hold(mutex, 100, 200)
		s.hold(mutex, 300, 400).Fence = 0
	}},
	{"a fence below zero", KindFence, func(s *story) {
		s.hold(mutex, 100, 200)
		s.hold(mutex, 300, 400).Fence = -5
	}},
	{"the last write, which was accepted, is lost", KindRegister, func(s *story) {
		s.write(s.hold(mutex, 100, 200), 110, Write{ID: "a", Outcome: OK})
		delete(s.Log, "a")
	}},
	{"the last write was refused, and is there", KindRegister, func(s *story) {
		a := lost(s.hold(mutex, 100, 0), 101)
		b := s.hold(mutex, 300, 400)
		s.write(b, 310, Write{ID: "b", Outcome: OK})
		s.write(a, 450, Write{ID: "late", Outcome: Refused})
		s.Log["late"] = "b"
	}},
	{"a write met something else than it said", KindRegister, func(s *story) {
		s.write(s.hold(mutex, 100, 200), 110, Write{ID: "a", Outcome: OK})
		s.Log["a"] = "b"
	}},
	{"somebody wrote between a claim and the write of a holder that was killed", KindRegister, func(s *story) {
		a, b := lost(s.hold(mutex, 100, 0), 101), lost(s.hold(mutex, 50, 0), 52)
		unfenced(a, b)
		s.Procs = append(s.Procs, Proc{a.Proc, 150 * ms})
		s.write(a, 110, Write{ID: "c", Claim: true, Fence: 5, Outcome: OK})
		s.write(b, 120, Write{ID: "b", Fence: 5, Outcome: OK})
		a.Writes = append(a.Writes, Write{Span: Span{Call: 140 * ms}, ID: "a", Fence: 5})
		s.Log["a"] = "b"
	}},
	{"a lock of a pool stays after its release", KindNobody, func(s *story) {
		h := s.hold(mutex, 100, 200)
		h.Single = false
		s.seen(h, 202)
	}},
	{"the first to come is never served, though the second is", KindLine, func(s *story) {
		first, second := s.hold(mutex, 3000, 0), s.hold(mutex, 1000, 1100)
		first.Acquire.Call, second.Acquire.Call = 100*ms, 400*ms
		first.Outcome, first.Release, first.Held, first.Fence = Refused, Span{}, nil, 0
	}},
	{"the audit says expired of a lock without a TTL", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Reason = "expired"
	}},
	{"the audit's row of a holder that was killed ends before the holder's word", KindAudit, func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 140)
		s.Procs = append(s.Procs, Proc{h.Proc, 150 * ms})
		row := s.row(h)
		row.Reason, row.Released = "killed", 120*ms+1000*sec
	}},
	{"the audit's intervals overlap by a millisecond", KindAudit, func(s *story) {
		a, b := s.hold(mutex, 100, 200), s.hold(mutex, 300, 400)
		s.row(a)
		s.Audit[0].Released = s.row(b).Acquired + ms
		a.Released = Failed
	}},
	{"the audit's row of a try that was refused is open", KindAudit, func(s *story) {
		h := s.hold(mutex, 100, 200)
		h.Outcome = Refused
		row := s.row(h)
		h.Release = Span{}
		row.Released, row.Reason = 0, ""
	}},
	{"a lock that is nobody's is there in the last look", KindNobody, func(s *story) {
		h := s.hold(mutex, 100, 200)
		s.seen(h, 900_000)
	}},
	{"a pool is told that it holds the lock", KindNobody, func(s *story) {
		h := s.hold(mutex, 100, 0)
		h.Outcome, h.Release, h.Single = Already, Span{}, false
	}},
	{"nobody gets a lock that is free, at the end", KindNobody, func(s *story) {
		s.End = past(300) * ms
		s.hold(mutex, 100, 200)
		s.inVain(150, past(300))
	}},
	{"the audit has a row of an acquire that failed, from before it", KindAudit, func(s *story) {
		h := s.hold(mutex, 100, 200)
		s.row(h).Acquired -= 10 * ms
		h.Outcome, h.Release = Failed, Span{}
	}},
	{"the audit has another TTL", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).TTL++
	}},
	{"the audit has another process", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).BackendPid++
	}},
	{"the audit has another mode", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Shared = true
	}},
	{"the audit's row says lost of a lock that was released", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Reason = "lost"
	}},
	{"the audit's row says nothing of a lock that was released", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Reason = ""
	}},
	{"the audit's hold ended before its release", KindAudit, func(s *story) {
		s.row(s.hold(mutex, 100, 200)).Released -= 5 * ms
	}},
	{"a hold of a pool has two rows, both released", KindAudit, func(s *story) {
		h := s.hold(mutex, 200, 300)
		h.Single = false
		s.earlier(*s.row(h), "released")
	}},
}

// soundEdges are histories that look odd there and are in order.
var soundEdges = []sane{
	{"a waiter gives up just when one that came later is served", func(s *story) {
		first, second := s.vain(100, 1900), s.hold(mutex, 1000, 1100)
		second.Acquire.Call = 400 * ms
		first.TTL = 0
	}},
	{"a waiter in vain learns of it late, since it got no processor", func(s *story) {
		first, second := s.vain(100, 2900), s.hold(mutex, 1000, 1100)
		second.Acquire.Call = 400 * ms
		s.stall(first.Proc, 1500, 2500)
	}},
	{"the register's server stood still when a writer was killed, whose write it then took", func(s *story) {
		a, b := lost(s.hold(mutex, 100, 0), 101), lost(s.hold(mutex, 50, 0), 52)
		unfenced(a, b)
		s.Procs = append(s.Procs, Proc{a.Proc, 150 * ms})
		s.fault(Fault{Kind: FaultPause}, 145, 6145)
		a.Writes = []Write{{Span: Span{Call: 140 * ms}, ID: "a", Fence: 5}}
		s.Log["a"] = "b"
		s.write(b, 5000, Write{ID: "b", Fence: 5, Outcome: OK})
	}},
	{"a success of the register that a crash took back", func(s *story) {
		s.write(s.hold(mutex, 100, 200), 110, Write{ID: "a", Outcome: OK})
		delete(s.Log, "a")
		s.fault(Fault{Kind: FaultRestart, Detail: detailImmediate}, 112, 500)
	}},
	{"the row of a reader that was killed ends at its last proof", func(s *story) {
		h := lost(s.reader(100, 0), 140)
		s.Procs = append(s.Procs, Proc{h.Proc, 150 * ms})
		row := s.row(h)
		row.Reason, row.Released = "killed", row.Acquired
	}},
}

// unfenced makes holds some for which no fence was asked.
func unfenced(holds ...*Hold) {
	for _, h := range holds {
		h.Fenced, h.Fence = false, 0
	}
}
