package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

const (
	// maxCall bounds a request that is tried again when it fails.
	maxCall = 5 * time.Second
	// watchLocal is after how long a key of this very Locker is watched too.
	watchLocal = 100 * time.Millisecond
)

var errWatchEnded = status.Error(codes.Unavailable, "the watch ended")

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
		there, err := e.follow(ctx)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case err != nil && !passes(err):
			return err
		case err != nil:
			// An outage. It goes on for as long as the lease lasts, at most.
			lease.Pause(ctx, lease.Backoff(failures))
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

// follow waits for a change of what is before e, or of e itself, and looks at it.
func (e *entry) follow(ctx context.Context) (there bool, err error) {
	local, stop := e.l.line.await(e)
	defer stop()
	if local {
		// The Locker tells it itself, unless the key is lost.
		timer := time.NewTimer(watchLocal)
		defer timer.Stop()
		select {
		case yours := <-e.told:
			return e.after(ctx, yours)
		case <-ctx.Done():
			return false, nil
		case <-timer.C:
		}
	}
	// Without a leader a member would never tell of a change.
	wctx, cancel := context.WithCancel(clientv3.WithRequireLeader(ctx))
	defer cancel()
	watches := make(chan clientv3.WatchResponse)
	for _, key := range []string{e.before, e.key} {
		go e.watch(wctx, key, watches)
	}
	// The watches begin at no revision, since etcd has one that begins in the past
	// wait for up to 100 ms before it is served. So the line is looked at once they
	// have begun.
	before := e.before
	for created := 0; ; {
		select {
		case yours := <-e.told:
			return e.after(ctx, yours)
		case <-ctx.Done():
			return false, nil
		case resp := <-watches:
			switch {
			case resp.Created && !resp.Canceled:
				created++
			case len(resp.Events) == 0:
				return false, errWatchEnded
			}
			if len(resp.Events) == 0 && created < 2 {
				continue
			}
			there, err = e.look(ctx)
			if err != nil || !there || e.before != before {
				return there, err
			}
		}
	}
}

// after is called when the owner of the key before e has given it up.
func (e *entry) after(ctx context.Context, yours bool) (there bool, err error) {
	if !yours {
		return e.look(ctx)
	}
	e.before, e.granted = "", true
	return true, nil
}

// watch passes on what becomes of key, also that the watch has ended.
func (e *entry) watch(ctx context.Context, key string, to chan<- clientv3.WatchResponse) {
	ch := e.l.client.Watch(ctx, key, clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
	for ok := true; ok; {
		var resp clientv3.WatchResponse
		resp, ok = <-ch
		select {
		case to <- resp:
		case <-ctx.Done():
			return
		}
	}
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
	e.note(created, resp.Responses[1].GetResponseRange())
	return true, nil
}

// note keeps what was read of the line.
func (e *entry) note(created int64, before *pb.RangeResponse) {
	e.revision, e.before = created, ""
	if len(before.Kvs) > 0 {
		e.before, e.beforeCreated = string(before.Kvs[0].Key), before.Kvs[0].CreateRevision
	}
	e.granted = e.before == ""
}

// restart begins the lease of a lock that was waited for. One that is shared is renewed
// all the time, unless the process was paused, or etcd could not be reached.
func (e *entry) restart(ctx context.Context) error {
	if e.sharesLease && e.lease.isFresh() {
		return nil
	}
	call, cancel := context.WithTimeout(ctx, e.lease.left())
	defer cancel()
	for n := 0; ; n++ {
		err := e.lease.renew(call)
		switch {
		case err == nil || ctx.Err() != nil:
			return err
		case call.Err() != nil:
			return fmt.Errorf("the place in line is gone: %w", errLeaseGone)
		case !passes(err):
			return fmt.Errorf("the place in line is gone: %w: %w", swanlock.ErrLost, err)
		}
		lease.Pause(call, lease.Backoff(n)) // An outage. It may go on for as long as the lease lasts.
	}
}

// denied reports whether err says that the user may not use the keys.
func denied(err error) bool {
	return errors.Is(err, rpctypes.ErrPermissionDenied) || status.Code(err) == codes.PermissionDenied
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
	case codes.Unknown: // The server knows the deadline of ctx, and its clock may be faster.
		return strings.HasSuffix(status.Convert(err).Message(), context.DeadlineExceeded.Error())
	}
	return errors.Is(err, context.DeadlineExceeded)
}
