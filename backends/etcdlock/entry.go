package etcdlock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
	"github.com/swanlake-io/swanlock/internal/quoted"
)

// An entry is one lock's key. All keys of a target are its line, in the order of
// their creation: a writer holds the lock while no key is before its own, a reader
// while no writer's is. It is a lease.Backend.
//
// The key is swanlock/<swanlock.KeyOf the target>/w/<one of the Locker's own>, or r for
// a reader. So the targets "a" and "a/b" have nothing in common, and every lock has a
// key that nobody else has, in any session.
type entry struct {
	l           *Locker
	key, value  string
	all, behind string // the prefixes of the line, and of what e waits for
	prefix      string // of its key
	o           swanlock.Options
	sharesLease bool

	lease         *serverLease // nil: nothing was sent
	revision      int64        // of its creation; 0: not known to be there
	told          chan bool    // what localLine says of before
	before        string       // the key that e has to wait for
	beforeCreated int64        // the revision of its creation
	granted       bool
	given         sync.Once // its lease, back
	deleted       bool      // and so its name may be that of another lock's key

	mu      sync.Mutex
	lost    error // why the key is gone
	waiting bool
	lose    func(cause error)
	extend  func(start time.Time) (held bool)
}

func (l *Locker) newEntry(target string, o swanlock.Options) *entry {
	all := "swanlock/" + strconv.FormatInt(int64(swanlock.KeyOf(target)), 10) + "/"
	writers := all + "w/"
	// For those who look at etcd. Both are valid UTF-8, so it cannot fail.
	value, _ := json.Marshal(struct{ Target, Owner string }{target, o.Owner})
	e := &entry{l: l, all: all, o: o, value: string(value), sharesLease: o.TTL == 0 || o.AutoRefresh, told: make(chan bool, 1)}
	if o.Shared {
		e.prefix, e.behind = all+"r/", writers
	} else {
		e.prefix, e.behind = writers, all
	}
	return e
}

func (e *entry) fence() uint64 {
	if e.o.Fence {
		return uint64(e.revision)
	}
	return 0
}

// create puts the key in line with send, under a lease.
func (e *entry) create(ctx context.Context, send func(context.Context) error) error {
	for {
		// What an earlier round has set is of another key.
		e.lease, e.revision, e.granted, e.lost = nil, 0, false, nil
		e.key = e.l.line.take(e.prefix)
		if err := e.l.leases.take(ctx, e); err != nil {
			e.l.line.remove(e.key, false)
			return err
		}
		renewed := e.lease.freshen(ctx)
		err := send(ctx)
		if err != nil && !errors.Is(err, swanlock.ErrNotAcquired) && !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			err = e.verify(ctx, err)
		}
		rerr := <-renewed
		if err == nil {
			err = rerr
		}
		switch {
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			// It ended, or the server has lost it. The key is gone with it.
			e.lease.end(e)
			e.l.line.remove(e.key, false)
			continue
		case errors.Is(err, swanlock.ErrNotAcquired):
			e.lease.forget(e, false)
			e.l.line.remove(e.key, false)
		case err == nil:
			e.l.line.created(e.key, e.revision)
			if e.sharesLease {
				e.lease.keep(e, true)
			}
		}
		return err
	}
}

// try creates the key if that grants the lock.
func (e *entry) try(ctx context.Context) error {
	resp, err := e.l.client.Txn(ctx).
		If(clientv3.Compare(clientv3.CreateRevision(e.behind).WithPrefix(), "=", 0)).
		Then(clientv3.OpPut(e.key, e.value, clientv3.WithLease(e.lease.id))).
		Else(clientv3.OpGet(e.behind, clientv3.WithFirstCreate()...)).
		Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		kv := resp.Responses[0].GetResponseRange().Kvs[0]
		var holder struct{ Owner string }
		_ = json.Unmarshal(kv.Value, &holder) // a value of somebody else's names no owner
		return fmt.Errorf("%w: held by %q, etcd key %s", swanlock.ErrNotAcquired, holder.Owner, quoted.Text(string(kv.Key)))
	}
	e.revision, e.granted = resp.Header.Revision, true
	return nil
}

// join creates the key, and notes which one it has to wait for.
func (e *entry) join(ctx context.Context) error {
	resp, err := e.l.client.Txn(ctx).If(clientv3.Compare(clientv3.CreateRevision(e.key), "=", 0)).Then(
		clientv3.OpGet(e.behind, append(clientv3.WithLastCreate(), clientv3.WithKeysOnly())...),
		clientv3.OpPut(e.key, e.value, clientv3.WithLease(e.lease.id)),
	).Commit()
	if err != nil {
		return err
	}
	if !resp.Succeeded {
		return errKeyThere
	}
	e.note(resp.Header.Revision, resp.Responses[0].GetResponseRange())
	return nil
}

// verify asks whether the key was created by a request whose answer was err.
func (e *entry) verify(ctx context.Context, err error) error {
	if there, verr := e.look(ctx); verr != nil || !there {
		return err
	}
	return nil
}

// Refresh renews the lease, and proves that the key is there.
func (e *entry) Refresh(ctx context.Context) error {
	renewed := make(chan error, 1)
	go func() { renewed <- e.lease.renew(ctx) }()
	resp, err := e.l.client.Get(ctx, e.key, clientv3.WithCountOnly())
	rerr := <-renewed
	switch {
	case errors.Is(rerr, rpctypes.ErrLeaseNotFound):
		return errLeaseGone
	case err == nil && resp.Count == 0:
		return errKeyGone
	}
	return errors.Join(err, rerr)
}

// Release deletes the key.
func (e *entry) Release(ctx context.Context) (held bool, err error) {
	if e.lease == nil || e.deleted {
		return false, nil
	}
	// After a writer the next one is alone; after a reader it may have to wait for
	// others.
	e.l.line.tell(e.key, e.granted && !e.o.Shared)
	resp, err := e.l.client.Delete(ctx, e.key)
	uncertain := err != nil || e.revision == 0
	if err == nil && uncertain && !e.sharesLease {
		// The request that creates the key may come still. It creates none without
		// a lease.
		_, err = e.l.client.Revoke(ctx, e.lease.id)
	}
	e.giveBack(uncertain)
	switch {
	case denied(err):
		return false, lease.Refused(err)
	case err != nil:
		return false, err
	}
	e.deleted = !uncertain
	return resp.Deleted > 0, nil
}

// giveBack gives up the lease and the name. It is uncertain whether the key will be there.
func (e *entry) giveBack(uncertain bool) {
	e.given.Do(func() {
		e.lease.forget(e, uncertain)
		e.l.line.remove(e.key, uncertain)
	})
}

var (
	errKeyThere  = errors.New("a key that is about to be created is there")
	errKeyGone   = fmt.Errorf("%w: its key in etcd was deleted", swanlock.ErrLost)
	errLeaseGone = fmt.Errorf("%w: its lease in etcd ended", swanlock.ErrLost)
)

// held is called when the lock is held: what is found out about the lease from now
// on is the lock's business.
func (e *entry) held(lock *lease.Lock) {
	start := e.lease.start() // It may have begun before the lock was asked for.
	e.mu.Lock()
	defer e.mu.Unlock()
	lose := lock.Loser()
	if e.lost != nil {
		lose(e.lost)
	}
	e.lose, e.waiting = lose, false
	extend := lock.Extender()
	extend(start)
	if e.sharesLease {
		e.extend = extend
		// A holder that does not release a lock that was lost must not keep it from
		// others, while other locks keep its lease alive.
		lock.AfterDone(func(err error) {
			if errors.Is(err, swanlock.ErrLost) {
				e.giveBack(true)
			}
		})
	}
}

// waits has lose called when the key is gone.
func (e *entry) waits(lose func(cause error)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lose, e.waiting = lose, true
	if e.lost != nil {
		lose(e.lost)
	}
}

func (e *entry) isWaiting() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.waiting
}

// gone says that the key is no more.
func (e *entry) gone(cause error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.lost = cause; e.lose != nil {
		e.lose(cause)
	}
}

// renewed says that the lease was renewed by a request that was sent after start, and
// that the key is there.
func (e *entry) renewed(start time.Time) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.extend != nil {
		e.extend(start)
	}
}
