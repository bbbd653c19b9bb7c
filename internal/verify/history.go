package verify

import (
	"fmt"
	"slices"
	"time"
)

// A History is what happened in one run, as the workers and the server told it.
// The checks look at nothing else. Times are those of now, in nanoseconds; 0 is
// never.
type History struct {
	Seed    uint64
	Targets []Target
	Holds   []*Hold
	Faults  []Fault
	Seen    []Sighting
	Audit   []AuditRow
	Procs   []Proc
	Log     map[string]string // the register's accepted operations, and the value that each met
	Stalls  []Stall
	Clocks  []Offset
	End     int64 // when the last event had been recorded

	Backend   string        `json:",omitempty"` // its name, if it is not PostgreSQL
	Unordered string        `json:",omitempty"` // why waiters are served in no order
	MostFree  time.Duration `json:",omitempty"` // for how long a lock may be free while it is waited for; 0: stallBound

	Bystanders []Bystander
	RolledBack int // transactions of the holders'

	index *index
}

// A Target is what the workers lock.
type Target struct {
	Name   string
	Key    int64
	Shared bool // readers lock it too
	Places int  // how many may hold it by a semaphore, or 1 lead; 0: it is a lock

	Parts []int64 // the keys of the locks that a semaphore is made of
}

// Kind is the model that a target's locks are checked against.
func (t Target) Kind() string {
	if t.Shared {
		return KindReadersWriter
	}
	return KindMutex
}

// An Outcome is how a call ended.
type Outcome string

const (
	Pending Outcome = ""        // it never returned: its process was killed
	OK      Outcome = "ok"      // granted, released, accepted
	Refused Outcome = "refused" // held elsewhere, waited in vain, or fenced off
	Already Outcome = "already" // the session was told that it holds the lock itself
	Lost    Outcome = "lost"    // release: the lock had been lost before
	Failed  Outcome = "failed"  // anything else
)

// A Span is a call: what it did, it did between these two times.
type Span struct{ Call, Return int64 }

// A Hold is an attempt to take a lock and, if it was granted, its life. What a
// process did between two system calls is somewhere between two times: Call is
// read before it, Return after it.
type Hold struct {
	ID      string // also the owner in the audit
	Proc    string // the process, and
	Client  int    // which of all clients of the run
	Label   string // the session's application_name
	Locker  string // what kind of locker took it
	Single  bool   // the label is that of one session
	Target  int
	Wait    bool // Acquire, not TryAcquire
	Shared  bool
	Fenced  bool // a fence was asked for
	Audited bool
	Auto    bool
	TTL     time.Duration

	InTransaction bool // it was asked for in a transaction of the holder's

	Acquire Span
	Outcome Outcome
	Err     string
	Fence   int64
	Pid     int // the backend; 0: not known

	Held     []Span  // when Err was nil
	Ended    int64   // when the holder first knew that it had lost it
	Release  Span    // Call 0: it was not called
	Released Outcome // meaningless without a call
	Writes   []Write
}

// A Write is an operation on the register that the lock guards: a claim reads
// it and raises its fence, the other writes it. Both carry the fence.
type Write struct {
	Span
	ID      string
	Claim   bool
	Fence   int64
	Outcome Outcome // OK, Refused, or Failed: not known, as Pending is
	Met     string  // the value that it found, if accepted
}

// leasesPlace reports whether h's place in line is to have a lease while it
// waits, so that it stops no other waiter for long if its process is stopped.
func (h *Hold) leasesPlace() bool { return h.Wait && h.TTL > 0 && !h.InTransaction }

// Kept reports whether the server itself has said that the lock was held until
// it was released, so that nothing that happened meanwhile has ended it.
func (h *Hold) Kept() bool {
	return h.Outcome == OK && h.Release.Call != 0 && h.Released == OK
}

func (h *Hold) String() string {
	what := "exclusive"
	if h.Shared {
		what = "shared"
	}
	return fmt.Sprintf("%s (%s, %s, fence %d, session %s)", h.ID, what, h.Locker, h.Fence, h.Label)
}

// A Fault is something that was done to the workers or to their server.
type Fault struct {
	Kind   string // as in --faults
	Detail string
	Span
	Proc  string // the process that it was done to; "": not to one
	Label string // the session, or those of one locker; "": not to one
	Pid   int    // the backend of the session; 0: not known
}

// What a fault can mean for a session.
const (
	detailHalfOpen  = "half-open"
	detailDelay     = "delay"
	detailClose     = "close"
	detailImmediate = "immediate"
	detailFast      = "fast"
	detailOutage    = "outage" // not of our doing: the observer could not reach the server
)

// Ends reports whether the fault ends sessions without the knowledge of their
// holders, which learn of it late. Then only the fence protects.
func (f Fault) Ends() bool {
	switch f.Kind {
	case FaultTerminate, FaultRestart:
		return true
	case FaultCut, FaultSilence:
		return f.Detail == detailClose
	}
	return false
}

// stalls reports whether the server or the network did nothing while the fault
// lasted.
func (f Fault) stalls() bool {
	return f.Kind == FaultPause || f.Kind == FaultSilence && f.Detail != detailClose
}

// touches reports whether f may have been done to h's session.
func (f Fault) touches(h *Hold) bool {
	if f.Kind == FaultLock && !h.Audited {
		return false
	}
	return (f.Label == "" || f.Label == h.Label) && (f.Proc == "" || f.Proc == h.Proc) && (f.Pid == 0 || h.Pid == 0 || f.Pid == h.Pid)
}

// A Sighting is a lock that the server showed at some instant of the span.
type Sighting struct {
	Span
	Target int
	Label  string
	Pid    int
	Shared bool
}

// A Proc is a worker process. Killed is when it had been reaped after SIGKILL.
type Proc struct {
	Name   string
	Killed int64
}

// An Offset is how far the server's wall clock was ahead of now at some instant
// of a span: at least Min, and at most Max.
type Offset struct{ Min, Max int64 }

// An AuditRow is a row of lock_audit; times are the server's, Unix nanoseconds.
type AuditRow struct {
	ID         int64
	Target     int
	Owner      string
	Shared     bool
	Fence      int64
	TTL        time.Duration
	Acquired   int64
	Released   int64 // 0: open
	Reason     string
	BackendPid int
}

// holds are the granted ones of a target, in the order of their calls.
func (hist *History) holds(target int) (granted []*Hold) {
	for _, h := range hist.Holds {
		if h.Target == target && h.Outcome == OK {
			granted = append(granted, h)
		}
	}
	slices.SortStableFunc(granted, func(a, b *Hold) int { return int(min(max(a.Acquire.Call-b.Acquire.Call, -1), 1)) })
	return granted
}
