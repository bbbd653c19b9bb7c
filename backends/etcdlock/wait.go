package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// maxCall bounds a request that is tried again when it fails.
const maxCall = 5 * time.Second

// wait returns nil when nothing is before e in line.
func (e *entry) wait(ctx context.Context) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	e.waits(func(cause error) { cancel(fmt.Errorf("the place in line is gone: %w", cause)) })
	if !e.sharesLease {
		e.lease.keep(e, true)
		defer e.lease.unkeep(e)
	}
	for failures := 0; ; {
		stop := e.l.line.await(e.before, e)
		told := e.watch(ctx)
		stop()
		select {
		case <-e.turn:
			e.granted = true
			return nil
		default:
		}
		there, err := false, error(nil)
		if told {
			there, err = e.look(ctx)
		}
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !passes(err):
			return err
		case !told, err != nil:
			// An outage. It goes on for as long as the lease lasts, at most.
			backOff(ctx, failures)
			failures++
		case !there:
			return fmt.Errorf("the place in line is gone: %w", errKeyGone)
		case e.granted:
			return nil
		default:
			failures = 0
		}
	}
}

// watch returns when what e knows of the line may be true no longer. It reports
// whether there is something to look at: a watch that etcd has ended says nothing,
// unless it was because what it was to begin with has been compacted. Both watches
// begin at the revision that e has read, so that they miss nothing.
func (e *entry) watch(ctx context.Context) bool {
	// Without a leader a member would never tell of a change.
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	changed := make(chan clientv3.WatchResponse, 2)
	for _, key := range []string{e.before, e.key} {
		go func() {
			changed <- <-e.l.client.Watch(ctx, key, clientv3.WithRev(e.read+1), clientv3.WithFilterPut())
		}()
	}
	select {
	case <-e.turn:
	case <-ctx.Done():
	case resp := <-changed:
		return len(resp.Events) > 0 || resp.CompactRevision > 0
	}
	return false
}

// look reads e's place in line, and reports whether it has one.
func (e *entry) look(ctx context.Context) (there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	defer cancel()
	created := e.revision
	if created == 0 {
		resp, err := e.l.client.Get(ctx, e.key, clientv3.WithKeysOnly())
		if err != nil || len(resp.Kvs) == 0 {
			return false, err
		}
		created = resp.Kvs[0].CreateRevision
	}
	resp, err := e.l.client.Txn(ctx).Then(
		clientv3.OpGet(e.key, clientv3.WithCountOnly()),
		clientv3.OpGet(e.behind, append(clientv3.WithLastCreate(), clientv3.WithKeysOnly(), clientv3.WithMaxCreateRev(created-1))...),
	).Commit()
	if err != nil || resp.Responses[0].GetResponseRange().Count == 0 {
		return false, err
	}
	e.note(created, resp.Header.Revision, resp.Responses[1].GetResponseRange())
	return true, nil
}

// note keeps what was read of the line.
func (e *entry) note(created, read int64, before *pb.RangeResponse) {
	e.revision, e.read, e.before = created, read, ""
	if len(before.Kvs) > 0 {
		e.before = string(before.Kvs[0].Key)
	}
	e.granted = e.before == ""
}

// restart begins the lease of a lock that was waited for. A lease that is shared is
// renewed all the time.
func (e *entry) restart(ctx context.Context) error {
	if e.sharesLease {
		return nil
	}
	err := e.lease.renew(ctx)
	if err != nil && !passes(err) && ctx.Err() == nil {
		return fmt.Errorf("the place in line is gone: %w: %w", swanlock.ErrLost, err)
	}
	return err
}

// passes reports whether err is of an outage, which may be over soon.
func passes(err error) bool {
	var e interface{ Code() codes.Code } // etcd's own
	if errors.As(err, &e) {
		return e.Code() == codes.Unavailable
	}
	switch status.Code(err) {
	case codes.Unavailable, codes.DeadlineExceeded:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded)
}

// backOff waits a moment, or until ctx ends.
func backOff(ctx context.Context, failures int) {
	timer := time.NewTimer(lease.Backoff(failures))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
