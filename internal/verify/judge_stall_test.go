package verify

import (
	"slices"
	"time"
)

// bystander is one of verify's own that was held from one time to another.
func (s *story) bystander(fault string, from, to int64, lost string) {
	s.Bystanders = append(s.Bystanders, Bystander{Span: Span{from * ms, to * ms}, Fault: fault, Locker: "Pool", Lost: lost})
}

// vain is a waiter for the mutex that did not get it.
func (s *story) vain(from, to int64) *Hold {
	h := s.hold(mutex, to, 0)
	h.Acquire, h.Outcome, h.Release, h.Held, h.Fence, h.TTL = Span{from * ms, to * ms}, Refused, Span{}, nil, 0, time.Second
	return h
}

// inVain are waiters without interruption.
func (s *story) inVain(from, to int64) {
	for ; from < to; from += 3000 {
		s.vain(from, min(from+3000, to))
	}
}

// past is a time in milliseconds at which a free lock has been waited for in vain
// for too long, if that began at from.
func past(from int64) int64 { return from + stallBound.Milliseconds() + 100 }

// plantedStalls are histories with one violation each, in which something is slow.
var plantedStalls = []plant{
	{"a lock is lost while somebody has the audit's table", KindSpared, func(s *story) {
		s.fault(Fault{Kind: FaultLock}, 100, 6000)
		s.bystander(FaultLock, 50, 6100, "no answer")
	}},
	{"a lock is lost in a pause", KindSpared, func(s *story) {
		s.fault(Fault{Kind: FaultPause}, 100, 6100)
		s.bystander(FaultPause, 50, 6200, "no answer")
	}},
	{"a session that was ended is no excuse for another's loss", KindSpared, func(s *story) {
		h := lost(s.hold(mutex, 200, 0), 210)
		s.fault(Fault{Kind: FaultTerminate, Label: h.Label}, 220, 221)
		s.bystander(FaultLock, 50, 6200, "no answer")
	}},
	{"a pause is no excuse for what a holder says", KindMutex, func(s *story) {
		h := lost(s.hold(mutex, 100, 0), 110, 7000)
		h.TTL = time.Second
		s.fault(Fault{Kind: FaultPause}, 150, 6150)
		s.hold(mutex, 6300, 6400)
	}},
	{"a silence that ended is no excuse for what a holder says", KindMutex, func(s *story) {
		lost(s.hold(mutex, 100, 0), 110, 7000)
		s.fault(Fault{Kind: FaultSilence}, 150, 3150)
		s.hold(mutex, 4000, 4100)
	}},
	{"nobody gets a lock that is free", KindNobody, func(s *story) {
		s.hold(mutex, 100, 200)
		s.inVain(150, past(300))
		s.hold(mutex, past(400), past(500))
	}},
	{"the first in line is stopped, and has no lease", KindNobody, func(s *story) {
		first := s.vain(150, past(1200))
		s.fault(Fault{Kind: FaultStop, Proc: first.Proc}, 300, past(1100))
		s.inVain(350, past(700))
	}},
	{"a hold has two rows", KindAudit, func(s *story) {
		s.earlier(*s.row(s.hold(mutex, 200, 300)), "released")
	}},
	{"the table was locked, but a lock was not audited", KindLine, func(s *story) {
		s.overtaken(100, 400)
		s.fault(Fault{Kind: FaultLock}, 50, 800)
	}},
	{"the first to come had no stall for long enough", KindLine, func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.stall(first.Proc, 380, 429)
	}},
	{"a stall of another process is no excuse", KindLine, func(s *story) {
		_, second := s.overtaken(100, 400)
		s.stall(second.Proc, 150, 350)
	}},
	{"a stall before the first came and one after the second", KindLine, func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.stall(first.Proc, 0, 100)
		s.stall("", 400, 480)
	}},
	{"a stall that was told twice", KindLine, func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.stall(first.Proc, 200, 245)
		s.stall("", 205, 249)
	}},
	{"a pause is no excuse for the audit's times", KindAudit, func(s *story) {
		s.Clocks = append(s.Clocks, Offset{994 * sec, 1000 * sec})
		s.row(s.hold(mutex, 100, 200)).Acquired -= 10 * ms
	}},
	{"a waiter that is stopped is granted the lock without a lease", KindNobody, func(s *story) {
		h := s.hold(mutex, 20_000, 20_100)
		h.Acquire.Call, h.TTL = 100*ms, time.Second
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 15_000)
		s.seen(h, 121+1000+(margin+oneWait).Milliseconds())
	}},
}

// earlier is an earlier row of a hold whose row is given.
func (s *story) earlier(row AuditRow, reason string) {
	row.ID += 100
	row.Acquired -= 20 * ms
	row.Released, row.Reason = row.Acquired+10*ms, reason
	s.Audit = append(s.Audit, row)
	slices.SortFunc(s.Audit, func(a, b AuditRow) int { return int(a.Acquired - b.Acquired) })
}

// soundStalls are histories that look odd and are in order.
var soundStalls = []sane{
	{"a lock is lost in a restart, while somebody has the audit's table", func(s *story) {
		s.fault(Fault{Kind: FaultLock}, 100, 6000)
		s.fault(Fault{Kind: FaultRestart}, 500, 600)
		s.bystander(FaultLock, 50, 6100, "no answer")
	}},
	{"a lock is lost in a pause that a silence follows", func(s *story) {
		s.fault(Fault{Kind: FaultPause}, 100, 6100)
		s.fault(Fault{Kind: FaultSilence}, 6100, 12_000)
		s.bystander(FaultPause, 50, 12_200, "no answer")
	}},
	{"bystanders keep their locks", func(s *story) {
		s.fault(Fault{Kind: FaultLock}, 100, 6000)
		s.bystander(FaultLock, 50, 6100, "")
	}},
	{"a holder is told late that the network was closed", func(s *story) {
		lost(s.hold(mutex, 100, 0), 110, 4100)
		s.fault(Fault{Kind: FaultSilence}, 150, 3150)
		s.fault(Fault{Kind: FaultSilence, Detail: detailClose}, 3149, 3150)
		s.hold(mutex, 4000, 4100)
	}},
	{"a pause keeps a lock at the server", func(s *story) {
		h := s.hold(mutex, 100, 20_000)
		h.TTL, h.Released, h.Ended, h.Held = time.Second, Lost, 15_001*ms, nil
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 15_000)
		s.fault(Fault{Kind: FaultPause}, 130, 6130)
		s.seen(h, 6130+900+margin.Milliseconds())
	}},
	{"an acquire that waited for the audit's table is undone late", func(s *story) {
		h, next := s.hold(mutex, 1000, 0), s.hold(shared, 3000, 3100)
		h.Outcome, h.Release, h.Audited, next.Label = Refused, Span{}, true, h.Label
		s.fault(Fault{Kind: FaultLock}, 500, 2000)
		s.seen(h, 2010)
	}},
	{"a hold had been granted too late, and was given back", func(s *story) {
		h := s.hold(mutex, 200, 300)
		h.TTL = time.Second
		s.earlier(*s.row(h), "expired")
	}},
	{"the second to come is served before a pool that has to open a session", func(s *story) {
		a, b := s.hold(mutex, 1700, 1800), s.hold(mutex, 1500, 1600)
		a.Acquire.Call, b.Acquire.Call, a.Single = 100*ms, 800*ms, false
		a.Fence, b.Fence = 2, 1
	}},
	{"the second to come is served first: the first got no processor", func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.stall(first.Proc, 120, 171)
	}},
	{"the second to come is served first: the server got no processor", func(s *story) {
		s.overtaken(100, 400)
		s.stall("", 90, 151)
	}},
	{"the second to come is served first: in sum, both got no processor for long enough", func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.stall(first.Proc, 300, 326)
		s.stall("", 90, 126)
	}},
	{"the second to come is served first: the server's stall began before one of the first and ended after it", func(s *story) {
		first, _ := s.overtaken(100, 400)
		s.stall("", 50, 160)
		s.stall(first.Proc, 60, 70)
	}},
	{"the second to come had no time to wait", func(s *story) {
		_, second := s.overtaken(100, 400)
		s.stall(second.Proc, 500, 602)
	}},
	{"a waiter that is stopped is granted the lock with a lease", func(s *story) {
		h := s.hold(mutex, 20_000, 20_100)
		h.Acquire.Call, h.TTL = 100*ms, time.Second
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 15_000)
		s.seen(h, 119+1000+(margin+oneWait).Milliseconds())
	}},
	{"a lock that was taken in a transaction has lost its lease", func(s *story) {
		h := s.hold(mutex, 100, 20_000)
		h.TTL, h.InTransaction = time.Second, true
		s.fault(Fault{Kind: FaultStop, Proc: h.Proc}, 120, 15_000)
		s.seen(h, 14_000)
	}},
	{"a free lock that few wait for", func(s *story) {
		s.hold(mutex, 100, 200)
		s.inVain(150, 4000)
		s.inVain(past(0), past(3000))
		s.hold(mutex, past(3400), past(3500))
	}},
	{"the first in line is stopped, and wanted no lease", func(s *story) {
		first := s.vain(150, past(1200))
		first.TTL = 0
		s.fault(Fault{Kind: FaultStop, Proc: first.Proc}, 300, past(1100))
		s.inVain(350, past(1000))
	}},
	{"nobody gets a lock while the network is silent", func(s *story) {
		s.hold(mutex, 100, 200)
		s.fault(Fault{Kind: FaultSilence}, 1000, 6000)
		s.inVain(150, past(300))
		s.hold(mutex, past(400), past(500))
	}},
	{"nobody gets a lock while the first in line waits for the audit's table", func(s *story) {
		s.hold(mutex, 100, 200)
		s.fault(Fault{Kind: FaultLock}, 1000, 6000)
		s.inVain(150, past(300))
		s.hold(mutex, past(400), past(500))
	}},
	{"a lock that is waited for is held by the session that the server shows", func(s *story) {
		h := s.hold(mutex, 100, past(300))
		h.Outcome, h.Release = Pending, Span{}
		for at := int64(200); at < past(300); at += 1000 {
			s.seen(h, at)
		}
		s.inVain(150, past(300))
		s.hold(mutex, past(400), past(500))
	}},
}
