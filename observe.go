package swanlock

import (
	"context"
	"fmt"
	"slices"
	"time"
)

// An Op is what an Event tells of.
type Op uint8

const (
	OpTryAcquire Op = iota + 1
	OpAcquire
	OpRefresh
	OpRelease
	OpLoss // no call: the lock was lost
)

// String returns "try", "acquire", "refresh", "release" or "loss".
func (op Op) String() string {
	names := [...]string{OpTryAcquire: "try", OpAcquire: "acquire", OpRefresh: "refresh", OpRelease: "release", OpLoss: "loss"}
	if op == 0 || int(op) >= len(names) {
		return fmt.Sprintf("Op(%d)", op)
	}
	return names[op]
}

// An Outcome says in one word how what an Event tells of ended.
type Outcome string

// The outcomes of an acquire are OutcomeAcquired, OutcomeNotAcquired,
// OutcomeCancelled and OutcomeError, those of a refresh and a release OutcomeOK,
// OutcomeLost and OutcomeError, and those of a loss OutcomeExpired and
// OutcomeLost.
const (
	OutcomeAcquired    Outcome = "acquired"
	OutcomeNotAcquired Outcome = "not_acquired" // held elsewhere
	OutcomeCancelled   Outcome = "cancelled"    // the caller's context had ended
	OutcomeOK          Outcome = "ok"
	OutcomeExpired     Outcome = "expired" // lost because the TTL ran out
	OutcomeLost        Outcome = "lost"
	OutcomeError       Outcome = "error" // what was asked for could not be done, or only in part
)

// An Event is a call that has ended, or the loss of a lock. Fields may be added.
type Event struct {
	Op      Op
	Target  string // as the caller named it
	Shared  bool
	Info    Info          // of the lock; zero if nothing was acquired
	Took    time.Duration // by the call; 0 if there was none
	Held    time.Duration // from Info.AcquiredAt until now, or until the lock's end: OpRelease and OpLoss
	Outcome Outcome
	Err     error // what the call returned, or how the lock was lost; not nil with OutcomeError

	// Ended says that the lock is over with this event, its release or its loss.
	// It is true for exactly one event of each lock that was acquired. If the
	// lock was released without this Locker, as by Pool.Close, that is an
	// OpRelease of which Begin was not told.
	Ended bool
}

// An Observer is told of what a Locker does: see Observe. Its methods are called
// by several goroutines at once.
type Observer interface {
	// Begin is called before each call. What it returns is passed to the End of
	// that call, and its values to the call itself; it has no say in when the
	// call's context ends.
	Begin(ctx context.Context, op Op, target string) context.Context

	// End is called when the call has returned, with the context that Begin
	// returned. It is also called with OpLoss, once for each lock that was lost,
	// with the context of the lock's acquire; that context does not end.
	End(ctx context.Context, e Event)
}

// Observe returns a Locker that does what l does, and tells each observer. Nil
// observers are left out; without any, Observe returns l itself. If l is nil, that
// is an error of each acquire.
//
// Locks are as they were, but for their type: As finds the lock of l, with the
// methods that it has beyond a DistributedLock. What a lock does by itself, such
// as the refreshes of WithAutoRefresh, is not told, except for its end.
//
// An observer cannot harm a lock. Each call of one runs in a goroutine of its
// own, and what it panics with is logged. The caller waits for it for 50 ms at
// most. While a call of an observer takes longer, what happens is told to it
// later, in order; beyond ten thousand events, they are dropped. An observer that
// has a method NeverBlocks() is called by the caller's own goroutine, which costs
// a tenth. The method is not called: it is a promise.
//
// To learn of a lock's end, Observe calls the method AfterDone(func(error))
// (stop func() bool), if the lock has one, as those of pglock and memlock do; it
// is like context.AfterFunc, with Err's result as the argument. For any other
// lock a goroutine waits for Done.
func Observe(l Locker, observers ...Observer) Locker {
	if l == nil {
		l = noLocker{}
	}
	observers = slices.DeleteFunc(slices.Clone(observers), func(o Observer) bool { return o == nil })
	if len(observers) == 0 {
		return l
	}
	o := &observed{Locker: l}
	for _, observer := range observers {
		_, direct := observer.(interface{ NeverBlocks() })
		o.watches = append(o.watches, &watch{observer: observer, direct: direct})
	}
	return o
}

// As returns held as a T or, if it is none, the first T among the locks that it
// wraps: those that it returns from a method Unwrap() DistributedLock, as an
// observed lock does. For example:
//
//	if l, ok := swanlock.As[*pglock.PostgresLock](held); ok {
//		log.Print(l.BackendPID())
//	}
func As[T DistributedLock](held DistributedLock) (T, bool) {
	for held != nil {
		if l, ok := held.(T); ok {
			return l, true
		}
		wrapper, ok := held.(interface{ Unwrap() DistributedLock })
		if !ok {
			break
		}
		held = wrapper.Unwrap()
	}
	var none T
	return none, false
}
