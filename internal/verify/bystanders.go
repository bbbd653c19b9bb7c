package verify

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Bystander is a lock of verify's own that was held while something was slow. No
// fault was done to its session, and its TTL, if it has one, is a minute: it must be
// held still.
type Bystander struct {
	Span
	Fault  string
	Locker string
	TTL    time.Duration
	Lost   string // why it is not; "" if it is
}

// bystanders are lockers with locks that are held while a fault is done.
type bystanders struct {
	lockers []*opened
	locks   []swanlock.DistributedLock
	about   []Bystander
	name    string // begins their targets
	group   sync.WaitGroup
}

// bystanderOwner begins the owners of their rows in the audit, which is not the
// history's.
const bystanderOwner = "bystander-"

// watch calls f, which does a fault of a kind, while bystanders hold locks, and
// notes which they still hold after it. If they cannot get their locks, f is
// called without them.
func (in *injector) watch(ctx context.Context, kind string, f func(*bystanders)) {
	ctx = context.WithoutCancel(ctx)
	b, err := in.bystanders(ctx, kind)
	defer b.close(ctx)
	if err != nil { // the server may just be down
		f(nil)
		return
	}
	f(b)
	b.group.Wait()
	seen := b.look(ctx)
	in.mu.Lock()
	defer in.mu.Unlock()
	in.bystood = append(in.bystood, seen...)
}

// bystanders takes two locks with each audited kind of locker, one with a TTL
// and one without. A statement that must wait might lose them.
func (in *injector) bystanders(ctx context.Context, kind string) (*bystanders, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	b := &bystanders{name: fmt.Sprintf("%s/bystander-%d", in.crash.Name, now())}
	p := &postgres{cfg: in.procs.config}
	for _, k := range lockerKinds {
		if !k.audited {
			continue
		}
		l, err := p.open(ctx, k, bystanderOwner+k.driver)
		if err != nil {
			return b, err
		}
		b.lockers = append(b.lockers, l)
		for _, ttl := range []time.Duration{0, time.Minute} {
			call := now()
			lock, err := l.TryAcquire(ctx, b.target(), b.owner(), swanlock.WithTTL(ttl))
			if err != nil {
				return b, err
			}
			b.locks = append(b.locks, lock)
			b.about = append(b.about, Bystander{Span: Span{Call: call}, Fault: kind, Locker: k.name, TTL: ttl})
		}
	}
	return b, nil
}

func (b *bystanders) target() string { return fmt.Sprintf("%s-%d", b.name, len(b.locks)) }

func (b *bystanders) owner() swanlock.Option {
	return swanlock.WithOwner(fmt.Sprintf("%s%d", bystanderOwner, len(b.locks)))
}

// call makes a call on each of the lockers. If one takes too long, only that
// call may fail.
func (b *bystanders) call(ctx context.Context) {
	if b == nil {
		return
	}
	for i, l := range b.lockers {
		b.group.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
			defer cancel()
			if lock, err := l.TryAcquire(ctx, fmt.Sprintf("%s-call-%d", b.name, i), b.owner()); err == nil {
				lock.Release(context.WithoutCancel(ctx))
			}
		})
	}
}

// look notes what has become of the locks. A refresh may fail at a bad time;
// what counts is whether the lock is held.
func (b *bystanders) look(ctx context.Context) []Bystander {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for i, lock := range b.locks {
		for {
			err := lock.Refresh(ctx)
			if lost := lock.Err(); lost != nil {
				b.about[i].Lost = lost.Error()
			} else if err != nil && pause(ctx, 50*time.Millisecond) == nil {
				continue
			}
			break
		}
		b.about[i].Return = now()
	}
	return b.about
}

func (b *bystanders) close(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, lock := range b.locks {
		lock.Release(ctx)
	}
	for _, l := range b.lockers {
		l.close(ctx)
	}
}

// checkSpared checks that slowness has lost no bystander its lock. It looks at
// the bystanders to which nothing else was done.
func checkSpared(hist *History) Result {
	r := Result{Kind: KindSpared}
	for _, b := range hist.Bystanders {
		if hist.troubled(b) {
			continue
		}
		r.Checked++
		if b.Lost != "" {
			r.find(Target{}, b.Return, "a lock that nothing was done to (%s, TTL %v) was lost %s after it was taken, while there was the fault %s: %s",
				b.Locker, b.TTL, seconds(b.Return, b.Call), b.Fault, b.Lost)
		}
	}
	return r
}

// troubled reports whether another fault may have ended b's session, or two
// faults that stop it came together and lasted for longer than a lock without a
// TTL can wait.
func (hist *History) troubled(b Bystander) bool {
	var stalls []Fault
	for _, f := range hist.Faults {
		if f.Return+int64(time.Second) < b.Call || f.Call > b.Return {
			continue
		}
		switch {
		case f.Ends() && f.Label == "":
			return true
		case f.stalls():
			stalls = append(stalls, f)
		}
	}
	return len(stalls) > 1 || slices.ContainsFunc(stalls, func(f Fault) bool { return f.Return-f.Call > int64(longestStall) })
}

// longestStall is how long a pause of six seconds may last on a busy machine.
const longestStall = 8 * time.Second
