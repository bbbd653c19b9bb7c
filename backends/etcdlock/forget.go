package etcdlock

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// forget gives the lease back. If it is uncertain whether e's key will be there, then
// a lease of one lock is not used again. One that is shared looks for the key, and is
// not used again either once nobody is left for whom it would look.
func (s *serverLease) forget(e *entry, uncertain bool) {
	s.unkeep(e)
	s.mu.Lock()
	if uncertain && s.shared {
		s.dropped[e.key] = true
	}
	last := len(s.kept) == 0
	s.bad = s.bad || uncertain && !s.shared || last && len(s.dropped) > 0
	bad := s.bad
	s.mu.Unlock()
	switch {
	case bad && last:
		s.abandon(time.Second)
	case uncertain && !bad:
		s.expect(e.key, time.Second)
	case !s.shared && !bad:
		s.ls.push(s)
	}
}

// end is forget for a lease that etcd does not know.
func (s *serverLease) end(e *entry) {
	s.unkeep(e)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bad = true
}

// abandon revokes a lease whose end is not known to etcd, or under which a key may be
// created yet.
func (s *serverLease) abandon(after time.Duration) {
	s.persist(after, func(ctx context.Context) error {
		_, err := s.ls.client.Revoke(ctx, s.id)
		return err
	})
}

// expect deletes a key of a shared lease that may have been created meanwhile. If it is
// created later, tick finds it.
func (s *serverLease) expect(key string, after time.Duration) {
	s.persist(after, func(ctx context.Context) error {
		_, err := s.ls.client.Delete(ctx, key)
		return err
	})
}

// persist calls f until it succeeds, or the lease has ended by itself.
func (s *serverLease) persist(after time.Duration, f func(ctx context.Context) error) {
	if s.left() <= 0 {
		return
	}
	time.AfterFunc(after, func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		err := f(ctx)
		if err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound) && s.ls.client.Ctx().Err() == nil {
			s.persist(min(2*after, 30*time.Second), f)
		}
	})
}
