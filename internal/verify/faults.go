package verify

import (
	"cmp"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/pglock"
)

// The faults of --faults.
const (
	FaultKill      = "kill"      // SIGKILL of a worker
	FaultStop      = "stop"      // SIGSTOP, and SIGCONT after a while: a pause, or a machine that slept
	FaultTerminate = "terminate" // pg_terminate_backend of a lock's session
	FaultCut       = "cut"       // the network: a connection closed, half open or slow
	FaultRestart   = "restart"   // of the server, fast or as in a crash
	FaultCancel    = "cancel"    // contexts that end at random
	FaultRollback  = "rollback"  // of a transaction in which a lock was taken or released
	FaultLock      = "lock"      // of the audit's table: a statement that must wait
	FaultPause     = "pause"     // of the whole server, SIGSTOP and SIGCONT
	FaultSilence   = "silence"   // of the network, for new connections too
)

// AllFaults are all there are.
var AllFaults = []string{FaultKill, FaultStop, FaultTerminate, FaultCut, FaultRestart, FaultCancel,
	FaultRollback, FaultLock, FaultPause, FaultSilence}

// byWorkers reports whether the workers do the fault themselves.
func byWorkers(fault string) bool { return fault == FaultCancel || fault == FaultRollback }

// NeedsOwnServer reports whether a fault is done to a throw-away server alone.
func NeedsOwnServer(fault string) bool { return fault == FaultRestart || fault == FaultPause }

// ParseFaults reads a list of faults: "all", "none", or names with commas.
func ParseFaults(list string) (faults []string, err error) {
	switch list {
	case "all":
		return AllFaults, nil
	case "none":
		return nil, nil
	}
	for name := range strings.SplitSeq(list, ",") {
		name = strings.TrimSpace(name)
		if !slices.Contains(AllFaults, name) {
			return nil, fmt.Errorf("%q is not a fault: they are all, none, or some of %s", name, strings.Join(AllFaults, ","))
		}
		if !slices.Contains(faults, name) {
			faults = append(faults, name)
		}
	}
	return faults, nil
}

// An injector does one fault after the other; those that last go on meanwhile.
type injector struct {
	enabled []string // without those that the workers do themselves
	procs   *procs
	d       *database
	proxy   *proxy
	server  map[string]func(ctx context.Context) // faults of a Backend's
	between time.Duration                        // faults, at most; 0: 450 ms
	restart func(ctx context.Context, immediate bool) error
	pause   func() (resume func(), err error)
	crash   Target // see around
	rnd     *rand.Rand

	mu     sync.Mutex
	faults []Fault
	holds  []*Hold // of our own
	group  sync.WaitGroup
	last   time.Time // of a restart

	slow    atomic.Bool // one of those in stalls.go is under way
	short   bool        // they are to be short
	bystood []Bystander
}

// weights say how often each fault is done. Those that stop everything are rare.
var weights = map[string]int{FaultKill: 40, FaultStop: 50, FaultTerminate: 40, FaultCut: 70, FaultRestart: 10,
	FaultLock: 6, FaultPause: 2, FaultSilence: 4}

// run injects faults until ctx ends, and returns when all is whole again. Each
// kind comes once first, so that a short run has them all.
func (in *injector) run(ctx context.Context) error {
	defer in.group.Wait()
	first := slices.Clone(in.enabled)
	retries := 40
	in.rnd.Shuffle(len(first), func(i, j int) { first[i], first[j] = first[j], first[i] })
	if i := slices.Index(first, FaultPause); i >= 0 { // no other fault begins meanwhile
		first = append(slices.Delete(first, i, i+1), FaultPause)
	}
	for {
		if pause(ctx, 50*time.Millisecond+time.Duration(in.rnd.Int64N(int64(cmp.Or(in.between, 450*time.Millisecond))))) != nil || len(in.enabled) == 0 {
			return nil
		}
		kind := in.pick()
		if in.short = len(first) > 0; in.short {
			kind = first[0]
		}
		done, err := in.inject(ctx, kind)
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("cannot %s: %w", kind, err)
		}
		if len(first) > 0 {
			first = first[1:]
			if !done && retries > 0 { // there was nobody to do it to
				first, retries = append(first, kind), retries-1
			}
		}
	}
}

// weight is how often a fault is done. Those of a Backend's server go on one after the
// other.
func weight(kind string) int { return cmp.Or(weights[kind], 30) }

func (in *injector) pick() string {
	total := 0
	for _, k := range in.enabled {
		total += weight(k)
	}
	n := in.rnd.IntN(total)
	for _, k := range in.enabled {
		if n -= weight(k); n < 0 {
			return k
		}
	}
	panic("unreachable")
}

func (in *injector) done(f Fault) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.faults = append(in.faults, f)
}

// inject does one fault, or begins it. It may find no process or session to do
// it to.
func (in *injector) inject(ctx context.Context, kind string) (done bool, err error) {
	switch kind {
	case FaultKill:
		return in.kill()
	case FaultStop:
		return in.stop(ctx), nil
	case FaultTerminate:
		return in.terminate(ctx)
	case FaultCut:
		return in.cut(ctx)
	case FaultRestart:
		return in.restartServer(ctx)
	case FaultLock:
		return in.lockTable(ctx)
	case FaultPause:
		return in.pauseServer(ctx)
	case FaultSilence:
		return in.silence(ctx)
	}
	return in.onServer(ctx, kind), nil
}

// What a process should preferably be when a fault is done to it.
const (
	aHolder = iota
	aLease
	aSessionsLease // which no pool keeps
	aWaiter        // for a lock with a TTL
)

// free returns a slot that no other fault uses, locked. It prefers a slot whose
// process is what is wanted, and waits a while for one.
func (in *injector) free(want int) *slot {
	first := in.rnd.IntN(len(in.procs.slots))
	tries := 40
	if want == aWaiter || want == aSessionsLease {
		tries = 200
	}
	for try := range tries {
		holding, waiting := in.procs.recorder.holding(want == aSessionsLease), in.procs.recorder.waiting()
		for i := range in.procs.slots {
			s := in.procs.slots[(first+i)%len(in.procs.slots)]
			if !s.mu.TryLock() {
				continue
			}
			left, ok := holding[s.proc.name]
			switch want {
			case aLease, aSessionsLease:
				ok = ok && left > 0
			case aWaiter:
				ok = waiting[s.proc.name]
			}
			if ok || try == tries-1 {
				return s
			}
			s.mu.Unlock()
		}
		time.Sleep(2 * time.Millisecond)
	}
	return nil
}

func (in *injector) kill() (bool, error) {
	s := in.free(aHolder)
	if s == nil {
		return false, nil
	}
	defer s.mu.Unlock()
	f := Fault{Kind: FaultKill, Proc: s.proc.name, Span: Span{Call: now()}}
	err := in.procs.kill(s)
	f.Return = now()
	in.done(f)
	return true, err
}

// stop pauses a worker: shortly, or for longer than any TTL, or for so long
// that a lock which it still has must be found as held by nobody, or for so
// long that a lock which it is first in line for must be found as waited for in
// vain.
func (in *injector) stop(ctx context.Context) bool {
	length, want := time.Duration(20+in.rnd.IntN(300))*time.Millisecond, aHolder
	switch n := in.rnd.IntN(12); {
	case n < 4:
		length = time.Duration(1200+in.rnd.IntN(1500)) * time.Millisecond
	case n < 8:
		length, want = longestTTL+margin+time.Second, aLease
		if n%2 == 0 {
			want = aSessionsLease
		}
	case n < 10:
		length, want = stallBound+2*time.Second, aWaiter
	}
	s := in.free(want)
	if s == nil {
		return false
	}
	in.group.Go(func() {
		defer s.mu.Unlock()
		p := s.proc
		p.signal(syscall.SIGSTOP)
		f := Fault{Kind: FaultStop, Detail: length.Round(10 * time.Millisecond).String(), Proc: p.name, Span: Span{Call: now()}}
		pause(ctx, length)
		f.Return = now()
		p.signal(syscall.SIGCONT)
		in.done(f)
	})
	return true
}

// victim returns a session of a lock, preferably one that holds something.
func (in *injector) victim(ctx context.Context) (b backend, err error) {
	all, err := in.d.backends(ctx)
	holding := slices.DeleteFunc(slices.Clone(all), func(b backend) bool { return !b.holds })
	if len(holding) > 0 && in.rnd.IntN(4) > 0 {
		all = holding
	}
	if err != nil || len(all) == 0 {
		return b, err
	}
	slices.SortFunc(all, func(a, b backend) int { return strings.Compare(a.label, b.label) })
	return all[in.rnd.IntN(len(all))], nil
}

func (in *injector) terminate(ctx context.Context) (bool, error) {
	b, err := in.victim(ctx)
	if err != nil || b.pid == 0 {
		return false, nil // the server may just have been restarted
	}
	f := Fault{Kind: FaultTerminate, Label: b.label, Pid: b.pid, Span: Span{Call: now()}}
	// Whatever is said of it, it may have ended the session.
	ended, err := in.d.terminate(ctx, b)
	f.Return = now()
	if ended || err != nil {
		in.done(f)
	}
	return ended, nil
}

func (in *injector) cut(ctx context.Context) (bool, error) {
	b, err := in.victim(ctx)
	if err != nil || b.pid == 0 {
		return false, nil
	}
	l := in.proxy.find(b.port)
	if l == nil {
		return false, nil
	}
	closeIt := func() {
		f := Fault{Kind: FaultCut, Detail: detailClose, Label: b.label, Pid: b.pid, Span: Span{Call: now()}}
		l.close()
		f.Return = now()
		in.done(f)
	}
	how, both, length := in.rnd.IntN(10), in.rnd.IntN(3), time.Duration(200+in.rnd.IntN(2300))*time.Millisecond
	switch {
	case how < 3:
		closeIt()
	case how < 8: // half open: in one direction, in the other, in both
		healed := in.rnd.IntN(2) == 0
		in.group.Go(func() {
			f := Fault{Kind: FaultCut, Detail: detailHalfOpen, Label: b.label, Pid: b.pid, Span: Span{Call: now()}}
			if both != 1 {
				l.up.set(true, 0)
			}
			if both != 0 {
				l.down.set(true, 0)
			}
			pause(ctx, length)
			if !healed {
				closeIt()
			}
			l.up.set(false, 0)
			l.down.set(false, 0)
			f.Return = now()
			in.done(f)
		})
	default:
		delay := time.Duration(20+in.rnd.IntN(300)) * time.Millisecond
		in.group.Go(func() {
			f := Fault{Kind: FaultCut, Detail: detailDelay, Label: b.label, Pid: b.pid, Span: Span{Call: now()}}
			l.up.set(false, delay)
			l.down.set(false, delay)
			pause(ctx, length)
			l.up.set(false, 0)
			l.down.set(false, 0)
			f.Return = now() + int64(delay)
			in.done(f)
		})
	}
	return true, nil
}

func (in *injector) restartServer(ctx context.Context) (bool, error) {
	if time.Since(in.last) < 3*time.Second {
		return false, nil
	}
	ctx = context.WithoutCancel(ctx)
	f := Fault{Kind: FaultRestart, Detail: detailFast}
	immediate := in.rnd.IntN(2) == 0
	if immediate {
		f.Detail = detailImmediate
		in.grants(ctx, 50)
	}
	f.Call = now()
	err := in.restart(ctx, immediate)
	f.Return = now()
	in.done(f)
	in.last = time.Now()
	if immediate && err == nil {
		in.grants(ctx, 1)
	}
	return true, err
}

// grants takes some fenced locks just before a crash, while nothing else writes
// that would flush their ids to the disk, and one just after it: the fences
// must still rise.
func (in *injector) grants(ctx context.Context, n int) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for range 5 { // the pool may hand out connections that the restart has ended
		if in.d.session(ctx, func(s *pglock.Session) error {
			for range n {
				h := ownHold(fmt.Sprintf("main-c%d", len(in.holds)), crashTarget, false)
				in.holds = append(in.holds, h)
				if err := once(ctx, s, h, in.crash); err != nil {
					return err
				}
			}
			return nil
		}) == nil {
			return
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	if !lease.Pause(ctx, d) {
		return context.Cause(ctx)
	}
	return nil
}
