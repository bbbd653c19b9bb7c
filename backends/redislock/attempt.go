package redislock

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// An attempt is what one token has on the servers: votes, and perhaps the lock. It
// is the lock's lease.Backend.
type attempt struct {
	l      *Locker
	key    string // of the lock
	token  string
	value  string        // of the lock's key
	lease  time.Duration // for which a vote lasts
	fenced bool          // it shall have a fence
	fence  uint64        // what was proposed last, and then what is granted; 0: none
	waits  bool          // in the line of a single server

	// straggling is for how long the rest of the servers is waited for when a majority
	// has answered, and not alike: one that is far away, or hangs, has the deciding vote.
	straggling time.Duration

	mu   sync.Mutex
	sent []sent // by server
}

// sent is what was sent to a server that may give it a vote for the token.
type sent struct {
	any  bool
	open int // of these calls, those that may still arrive, or arrive again
}

func (l *Locker) attempt(target string, o swanlock.Options) *attempt {
	token, length := l.id+"."+rand.Text(), l.leaseOf(o)
	return &attempt{l: l, key: keyOf(target), token: token, value: token + " " + o.Owner,
		lease: serverLease(length), fenced: o.Fence, straggling: min(maxSilence, length/2), sent: make([]sent, len(l.servers))}
}

// An answer is one server's to a script.
type answer struct {
	value    any
	err      error
	repeated bool // perhaps
}

// ask runs a script on all servers at once, with the arguments that guard.lua names
// and those that args returns, and shows the answers to count until that returns
// true. Those that come later it leaves to themselves. It does not rely on the
// client of Redis to look at ctx, which by default it does not do while it reads.
func (a *attempt) ask(ctx context.Context, s script, args func(sent) []any, count func(answer) (decided bool)) error {
	answers := make(chan answer, len(a.sent))
	detached := context.WithoutCancel(ctx)
	keys := append(make([]string, 0, 6), a.key, a.tombstone(), a.key+":fence", a.key+":line")
	if a.l.quarantine != "" {
		keys = append(keys, bornKey, quarantineKey)
	}
	for i, server := range a.l.servers {
		if !s.votes && !a.voted(i) {
			answers <- answer{value: int64(0)}
			continue
		}
		if err := server.begin(!s.votes || len(a.sent) == 1); err != nil {
			answers <- answer{err: err}
			continue
		}
		own := append([]any{"cached", a.l.quarantine, a.value}, args(a.note(i, s.votes))...)
		start := time.Now()
		server.queue.send(call{detached, s, keys, own, func(value any, err error) {
			server.end(err)
			repeated := time.Since(start) >= unrepeated
			if s.votes && answered(err) && !repeated {
				a.arrived(i)
			}
			answers <- answer{value, err, repeated}
		}})
	}
	var late <-chan time.Time // then the others are not waited for any longer
	for n := range a.sent {
		if n == len(a.sent)/2+1 {
			timer := time.NewTimer(a.straggling)
			defer timer.Stop()
			late = timer.C
		}
		select {
		case r := <-answers:
			if count(r) {
				return nil
			}
		case <-late:
			for range len(a.sent) - n {
				count(answer{err: errSilent})
			}
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

// unrepeated is for how long a call was certainly sent once. The client waits for longer
// before it repeats one; then the answer may be to either, and the other arrive later.
const unrepeated = 5 * time.Millisecond

// note returns what was sent to a server before, and notes what is sent now.
func (a *attempt) note(server int, votes bool) sent {
	a.mu.Lock()
	defer a.mu.Unlock()
	before := a.sent[server]
	if votes {
		a.sent[server] = sent{true, before.open + 1}
	}
	return before
}

// voted reports whether a server may have a vote for the token.
func (a *attempt) voted(server int) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.sent[server].any
}

func (a *attempt) arrived(server int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.sent[server].open--
}

// vote runs a script that may give votes.
func (a *attempt) vote(ctx context.Context, s script, args []any, count func(answer) bool) error {
	own := append([]any{ms(a.lease), strconv.FormatUint(a.fence, 10)}, args...)
	return a.ask(ctx, s, func(sent) []any { return own }, count)
}

func (a *attempt) tombstone() string { return a.key + ":" + a.token }

const (
	bornKey       = "swanlock:born"
	quarantineKey = "swanlock:quarantine"
)

// acquire asks for the votes, once. The error matches swanlock.ErrNotAcquired if
// somebody else has a quorum; then the votes that it got are given back. place says
// what acquire.lua shall do about a place in the line.
func (a *attempt) acquire(ctx context.Context, place ...any) (fence uint64, err error) {
	if a.fenced { // With one of now, for servers that have lost theirs.
		a.fence = max(a.fence, a.l.clock.next())
	}
	n, quorum := len(a.sent), len(a.sent)/2+1
	var granted, abstained int
	var quarantine time.Duration
	var fences []uint64
	others := make(map[string]int) // votes, by value
	var errs []error
	var refused error
	err = a.vote(ctx, acquireScript, place, func(r answer) bool {
		said, err := reply(r)
		if err != nil {
			errs = append(errs, err)
			return len(errs)+abstained > n-quorum
		}
		switch said.what {
		case "granted":
			granted++
			fences = append(fences, said.fence)
			return granted == quorum
		case "held", "waited":
			others[said.by]++
			if others[said.by] == quorum {
				refused = &heldError{said}
			}
			return refused != nil
		case "abstains":
			abstained++
			quarantine = max(quarantine, said.left)
		}
		return len(errs)+abstained > n-quorum
	})
	switch {
	case err != nil:
		return 0, err
	case granted == quorum:
		return a.agree(ctx, fences)
	case refused != nil:
		if n > 1 {
			go a.Release(context.WithoutCancel(ctx))
		}
		return 0, refused
	case len(errs)+abstained <= n-quorum:
		return 0, errSplit
	case abstained > 0:
		errs = append(errs, &quarantineError{quarantine})
	}
	return 0, errors.Join(errs...)
}

// agree returns a fence that a quorum of the servers has stored, and that is no
// lower than those that granted the lock.
func (a *attempt) agree(ctx context.Context, fences []uint64) (uint64, error) {
	if a.fence == 0 {
		return 0, nil
	}
	agreed := true
	for _, f := range fences {
		agreed = agreed && f == fences[0]
		a.met(f)
	}
	if agreed {
		return a.fence, nil
	}
	// Only a fence that a majority knows is met by every later majority.
	err := a.Refresh(ctx)
	if errors.Is(err, swanlock.ErrLost) { // by servers; nobody has held it yet
		err = fmt.Errorf("%w: %v", errSplit, err)
	}
	return a.fence, err
}

// met notes a fence that a server has stored.
func (a *attempt) met(fence uint64) {
	a.fence = max(a.fence, fence)
	a.l.clock.see(a.fence)
}

// Refresh proves that a quorum of the servers holds the lock, and restarts its
// lease. It gives the lock to those that do not have it, of several, so that one
// restart after the other does not use them up.
func (a *attempt) Refresh(ctx context.Context) error {
	t := tally{servers: len(a.sent)}
	heal := "0"
	if t.servers > 1 {
		heal = "1"
	}
	err := a.vote(ctx, refreshScript, []any{heal}, t.count)
	switch {
	case err != nil:
		return err
	case t.isHeld():
		return nil
	case t.isNotHeld():
		return fmt.Errorf("%w: %d of %d servers do not hold it", swanlock.ErrLost, t.not, t.servers)
	}
	return errors.Join(t.errs...)
}

// Release frees the lock wherever something was sent that may have given it a
// vote.
func (a *attempt) Release(ctx context.Context) (held bool, err error) {
	t := tally{servers: len(a.sent)}
	waits, late := "0", a.lease
	if a.waits {
		waits, late = "1", max(late, presence) // A question that comes late must not join the line either.
	}
	err = a.ask(ctx, releaseScript, func(before sent) []any {
		tombstone := "0"
		if before.open > 0 {
			tombstone = ms(late)
		}
		return []any{tombstone, waits, ms(presence - fresh)}
	}, t.count)
	switch {
	case t.isHeld():
		return true, nil
	case t.isNotHeld() && t.repeated:
		return false, lease.ErrRepeated
	case t.isNotHeld():
		return false, nil
	}
	if err = errors.Join(append(t.errs, err)...); !passes(err) {
		err = lease.Refused(err)
	}
	return false, err
}

// A tally counts the servers that answer that they held the lock, and that they did
// not.
type tally struct {
	servers   int
	held, not int
	repeated  bool // one that did not may have held it before
	errs      []error
}

// count reports whether no other answer matters any more.
func (t *tally) count(r answer) (decided bool) {
	switch {
	case r.err != nil:
		t.errs = append(t.errs, r.err)
	case r.value == int64(1):
		t.held++
	default:
		t.not++
		t.repeated = t.repeated || r.repeated
	}
	return t.isHeld() || t.isNotHeld() || t.tooFew(t.servers-len(t.errs))
}

// isHeld reports whether a quorum held the lock, isNotHeld that none can have.
func (t *tally) isHeld() bool    { return !t.tooFew(t.held) }
func (t *tally) isNotHeld() bool { return t.tooFew(t.servers - t.not) }

// tooFew reports whether n servers are no quorum.
func (t *tally) tooFew(n int) bool { return n <= t.servers/2 }
