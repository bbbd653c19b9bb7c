package etcdlock

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swanlake-io/swanlock/internal/lease"
)

const (
	// minTTL is the shortest lease that etcd grants at its default settings: one
	// and a half times its election timeout of a second, in whole seconds.
	minTTL = 2 * time.Second
	// maxTTL is what etcd's lessor accepts.
	maxTTL = 9_000_000_000 * time.Second
	// maxIdle bounds the leases that are kept for later locks, of each length.
	maxIdle = 32
	// maxDropped bounds the keys that a shared lease looks for. Then it serves those that
	// have it, and no others.
	maxDropped = 1000
)

// leases has the leases of a Locker.
//
// Locks that are refreshed in the background share one for each TTL, which is
// renewed for all of them: so ten thousand locks need one. A lock whose holder
// refreshes it by itself has a lease of its own, since a refresh of another lock
// must not keep it alive. Such a lease serves the next lock when it is released.
type leases struct {
	client *clientv3.Client

	mu     sync.Mutex
	groups map[time.Duration]*group         // by TTL
	idle   map[time.Duration][]*serverLease // by the length that etcd has
	live   int                              // how many of both there were after the last sweep
}

// A group is the lease that locks share.
type group struct {
	turn    chan struct{} // taken by the one that looks at current
	current *serverLease
}

// take gives e a lease.
func (ls *leases) take(ctx context.Context, e *entry) (err error) {
	ttl := cmp.Or(e.o.TTL, e.l.session)
	if !e.sharesLease {
		if e.lease = ls.pop(ttl); e.lease == nil {
			e.lease, err = ls.grant(ctx, ttl, false)
		}
		return err
	}
	g := ls.group(ttl)
	select {
	case g.turn <- struct{}{}:
		defer func() { <-g.turn }()
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if g.current == nil || !g.current.join(e) {
		s, err := ls.grant(ctx, ttl, true)
		if err != nil {
			return err
		}
		g.current = s
		s.keep(e, false)
	}
	e.lease = g.current
	return nil
}

func (ls *leases) group(ttl time.Duration) *group {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.groups[ttl] == nil {
		ls.sweepLocked()
		ls.groups[ttl] = &group{turn: make(chan struct{}, 1)}
	}
	return ls.groups[ttl]
}

// sweepLocked forgets the leases that have ended by themselves, when there may be many:
// each lock may have a TTL of its own, such as the time that is left for a job.
func (ls *leases) sweepLocked() {
	if len(ls.groups)+len(ls.idle) <= 2*ls.live+maxIdle {
		return
	}
	for length, idle := range ls.idle {
		if ls.idle[length] = slices.DeleteFunc(idle, func(s *serverLease) bool { return !s.usable() }); len(ls.idle[length]) == 0 {
			delete(ls.idle, length)
		}
	}
	for ttl, g := range ls.groups {
		select {
		case g.turn <- struct{}{}:
			if g.current == nil || !g.current.usable() {
				delete(ls.groups, ttl)
			}
			<-g.turn
		default: // It is used.
		}
	}
	ls.live = len(ls.groups) + len(ls.idle)
}

func (ls *leases) pop(ttl time.Duration) *serverLease {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	length := inEtcd(ttl)
	for idle := ls.idle[length]; len(idle) > 0; {
		s := idle[len(idle)-1]
		idle = idle[:len(idle)-1]
		ls.idle[length] = idle
		if s.usable() {
			s.ttl = ttl
			return s
		}
	}
	return nil
}

func (ls *leases) push(s *serverLease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.sweepLocked()
	if length := s.term.Length; len(ls.idle[length]) < maxIdle { // else it ends by itself
		ls.idle[length] = append(ls.idle[length], s)
	}
}

// inEtcd returns how long a lease for ttl lasts.
func inEtcd(ttl time.Duration) time.Duration {
	return (max(ttl, minTTL) + time.Second - 1) / time.Second * time.Second
}

// grant asks for a lease. If the answer does not come, the lease ends by itself.
func (ls *leases) grant(ctx context.Context, ttl time.Duration, shared bool) (*serverLease, error) {
	start := time.Now()
	length := inEtcd(ttl)
	resp, err := ls.client.Grant(ctx, int64(length/time.Second))
	if err != nil {
		return nil, err
	}
	return &serverLease{ls: ls, id: resp.ID, ttl: ttl, shared: shared,
		term: lease.Term{Length: length, Start: start}, kept: make(map[string]*keptKey), dropped: make(map[string]bool)}, nil
}

// A serverLease is a lease in etcd.
type serverLease struct {
	ls     *leases
	id     clientv3.LeaseID
	ttl    time.Duration // of its locks
	shared bool

	mu   sync.Mutex
	term lease.Term // as etcd has it, in whole seconds, since the last renewal
	bad  bool       // not to be used for another lock
	kept map[string]*keptKey
	// Keys that are nobody's, but may be created yet by requests that were not answered.
	dropped map[string]bool
	timer   *time.Timer // of the next renewal in the background
	stop    context.CancelFunc
}

// A keptKey is a key that the lease is renewed for in the background.
type keptKey struct {
	e       *entry
	created bool // it is known to be there
}

func (s *serverLease) usable() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.bad && s.term.Left(time.Now()) > 0
}

func (s *serverLease) left() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term.Left(time.Now())
}

func (s *serverLease) start() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.term.Start
}

// renew restarts the lease.
func (s *serverLease) renew(ctx context.Context) error {
	start := time.Now()
	_, err := s.ls.client.KeepAliveOnce(ctx, s.id)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case errors.Is(err, rpctypes.ErrLeaseNotFound):
		s.bad = true
	case err == nil && start.After(s.term.Start):
		s.term.Start = start
	}
	return err
}

// isFresh reports whether the lease serves a lock as it is. A lock that its holder
// refreshes has all of its TTL but a fiftieth, so that those that are taken in quick
// succession do not restart the lease each time; Deadline tells what there is.
func (s *serverLease) isFresh() bool {
	most := s.ttl / 50
	if s.shared {
		most = s.ttl / 2
	}
	return (lease.Term{Length: most, Start: s.start()}).Left(time.Now()) > 0
}

// freshen restarts the lease for a lock that is about to be taken, unless it is fresh,
// at the same time as the request for the lock.
func (s *serverLease) freshen(ctx context.Context) <-chan error {
	renewed := make(chan error, 1)
	if s.isFresh() {
		renewed <- nil
		return renewed
	}
	go func() {
		err := s.renew(ctx)
		if s.shared && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = nil // The lock has what is left of the lease.
		}
		renewed <- err
	}()
	return renewed
}

// every returns how often the lease is renewed in the background. That of one lock is
// renewed while the lock is waited for, whose TTL begins later.
func (s *serverLease) every() time.Duration {
	if s.shared {
		return s.ttl / 3
	}
	return s.term.Length / 3
}

// join is keep for a lease that may serve no more, and reports whether it does.
func (s *serverLease) join(e *entry) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bad || len(s.dropped) >= maxDropped || s.term.Left(time.Now()) <= 0 {
		return false
	}
	s.keepLocked(e, false)
	return true
}

// keep has the lease renewed in the background for e.
func (s *serverLease) keep(e *entry, created bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keepLocked(e, created)
}

func (s *serverLease) keepLocked(e *entry, created bool) {
	s.kept[e.key] = &keptKey{e, created}
	if s.timer == nil {
		next := lease.Term{Length: s.every(), Start: s.term.Start}
		s.timer = time.AfterFunc(max(next.Left(time.Now()), 0), s.tick)
	}
}

// unkeep is the reverse of keep. Another entry may have the name of e's key by now.
func (s *serverLease) unkeep(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.kept[e.key]; k != nil && k.e == e {
		delete(s.kept, e.key)
	}
	if len(s.kept) > 0 || s.timer == nil {
		return
	}
	s.timer.Stop()
	s.timer = nil
	if s.stop != nil {
		s.stop()
	}
}

// tick renews the lease, and proves that the keys are there.
func (s *serverLease) tick() {
	s.mu.Lock()
	if s.timer == nil {
		s.mu.Unlock()
		return
	}
	timer := s.timer
	began := time.Now()
	every := s.every()
	ctx, cancel := context.WithTimeout(context.Background(), every)
	s.stop = cancel
	s.mu.Unlock()
	defer cancel()

	err := s.renew(ctx)
	if err == nil {
		err = s.prove(ctx)
	}
	ended := errors.Is(err, rpctypes.ErrLeaseNotFound)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = s.bad || ended // Nothing renews it any more.
	for _, k := range s.kept {
		// A lock that is held sees by itself that its lease is over.
		if ended || s.term.Left(time.Now()) <= 0 && k.e.isWaiting() {
			k.e.gone(errLeaseGone)
		}
	}
	if s.timer == timer && !ended {
		timer.Reset(max(every-time.Since(began), every/10))
	}
}

// prove asks in one request which keys the lease has. It extends the locks whose keys
// are there, ends those whose keys are not, and deletes keys that are nobody's: a
// request for them came late.
func (s *serverLease) prove(ctx context.Context) error {
	start, known := s.start(), make(map[string]*entry)
	s.mu.Lock()
	for key, k := range s.kept {
		if k.created {
			known[key] = k.e
		}
	}
	s.mu.Unlock()
	resp, err := s.ls.client.TimeToLive(ctx, s.id, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	if resp.TTL < 0 {
		return rpctypes.ErrLeaseNotFound
	}
	for _, b := range resp.Keys {
		key := string(b)
		if e := known[key]; e != nil {
			e.renewed(start)
			delete(known, key)
			continue
		}
		s.mu.Lock()
		dropped := s.dropped[key]
		s.mu.Unlock()
		if dropped {
			if _, err := s.ls.client.Delete(ctx, key); err != nil {
				return err
			}
		}
	}
	for key, e := range known {
		// The member that answers may be behind, so its word is not enough.
		resp, err := s.ls.client.Get(ctx, key, clientv3.WithCountOnly())
		switch {
		case err != nil:
			return err
		case resp.Count == 0:
			e.gone(errKeyGone)
		default:
			e.renewed(start)
		}
	}
	return nil
}
