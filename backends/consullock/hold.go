package consullock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

// A hold is one lock's session, and its key. It is a lease.Backend.
type hold struct {
	client        *api.Client
	key           string
	target, owner string
	ttl           time.Duration
	fenced        bool

	session string // empty: none yet
	refused bool   // another session has had the key
}

// try takes the lock if it is free.
func (h *hold) try(ctx context.Context, r lease.Request) (*lease.Lock, error) {
	r.Backend = h
	return lease.Try(ctx, r, func(ctx context.Context) (fence uint64, err error) {
		if err := h.open(ctx); err != nil {
			return 0, err
		}
		return h.lock(ctx)
	})
}

// open makes a session, or restarts the TTL of the one that a wait has had.
func (h *hold) open(ctx context.Context) error {
	if h.session != "" {
		entry, _, err := h.client.Session().Renew(h.session, (&api.WriteOptions{}).WithContext(ctx))
		if err != nil || entry != nil {
			return err
		}
		h.session = "" // It has ended.
	}
	// A session that nobody knows of lives for twice the TTL. So the caller leaves when
	// ctx ends, and the request goes on for a while.
	id, err := lease.Leave(ctx, func() (id string, err error) {
		const late = 5 * time.Second
		own, cancel := context.WithCancel(context.WithoutCancel(ctx))
		defer cancel()
		defer context.AfterFunc(ctx, func() { time.AfterFunc(late, cancel) })()
		return h.create(own)
	}, func(id string, err error) {
		if err == nil {
			destroy(ctx, h.client, id)
		}
	})
	switch {
	case err == nil && id == "":
		err = errOther
	case err == nil:
		h.session = id
		return nil
	case strings.Contains(err.Error(), "Invalid Session TTL"):
		return fmt.Errorf("%w: a TTL of %v: %w", errors.ErrUnsupported, h.ttl, err)
	}
	return fmt.Errorf("make a session: %w", err)
}

// create makes a session.
func (h *hold) create(ctx context.Context) (id string, err error) {
	id, _, err = h.client.Session().CreateNoChecks(&api.SessionEntry{
		// The name is for those who look at Consul.
		Name: "swanlock " + short(h.owner),
		TTL:  h.ttl.String(),
		// By default the lock would be free when the agent's own health check fails,
		// long before its TTL. 0 says 15 s; a holder of ours counts its lease from before
		// its renewal was sent, so it needs no delay.
		LockDelay: time.Millisecond,
		Behavior:  api.SessionBehaviorDelete,
	}, (&api.WriteOptions{}).WithContext(ctx))
	return id, err
}

// lock has the session lock the key.
func (h *hold) lock(ctx context.Context) (fence uint64, err error) {
	// It is for those who look at Consul, which takes half a megabyte at most. It is
	// text, by the contract, so this cannot fail.
	value, _ := json.Marshal(struct{ Target, Owner string }{short(h.target), short(h.owner)})
	ok, resp, _, err := h.client.Txn().Txn(api.TxnOps{
		{KV: &api.KVTxnOp{Verb: api.KVLock, Key: h.key, Value: value, Session: h.session}},
	}, (&api.QueryOptions{}).WithContext(ctx))
	var index uint64
	switch {
	case err == nil && ok && len(resp.Results) == 1 && resp.Results[0] != nil && resp.Results[0].KV != nil:
		index = resp.Results[0].KV.ModifyIndex
	case err == nil && !ok && len(resp.Errors) > 0:
		err := refused(resp, swanlock.ErrNotAcquired, "lock is already held", "due to lock delay")
		if h.refused = errors.Is(err, swanlock.ErrNotAcquired); !h.refused {
			h.end(ctx)
			err = lease.Refused(err)
		}
		return 0, err
	default:
		if err == nil {
			err = errOther
		}
		// It may have been carried out all the same.
		pair, _, verr := h.client.KV().Get(h.key, (&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
		if verr != nil || pair == nil || pair.Session != h.session {
			return 0, err
		}
		index = pair.ModifyIndex
	}
	if h.fenced {
		// LockIndex begins anew when the key is deleted; this is Raft's own index.
		fence = index
	}
	return fence, nil
}

var (
	errEnded = errors.New("its session in Consul has ended")
	// errOther is of a proxy, say, that has no way to Consul.
	errOther = errors.New("the answer is none of Consul's")
)

// short returns the beginning of a text that may be long.
func short(text string) string {
	const most = 1000
	return strings.ToValidUTF8(text[:min(len(text), most)], "")
}

// A refusal is why Consul did not carry out a transaction.
type refusal string

func (r refusal) Error() string { return string(r) }

// refused returns why resp is not what was asked for. It matches meaning if one of
// texts is in the reason. Consul answers in the same way if, say, the token may not
// use the key, which says nothing about the lock.
func refused(resp *api.TxnResponse, meaning error, texts ...string) error {
	var reasons []string
	for _, e := range resp.Errors {
		if e != nil {
			reasons = append(reasons, e.What)
		}
	}
	if len(reasons) == 0 {
		return errOther
	}
	reason := refusal(strings.Join(reasons, "; "))
	if slices.ContainsFunc(texts, func(text string) bool { return strings.Contains(string(reason), text) }) {
		return fmt.Errorf("%w: %w", meaning, reason)
	}
	return reason
}

// freed waits until no session has the key. It looks at once, since the refusal may
// have been because of a lock delay, whose end changes nothing that a blocking query
// would tell of.
func (h *hold) freed(ctx context.Context) error {
	index := uint64(0)
	for n := 0; ; n++ {
		pair, last, err := h.changed(ctx, index)
		if err != nil || pair == nil || pair.Session == "" {
			return err
		}
		if last < index {
			last = 0 // Consul has lost its data.
		}
		index = last
		// A proxy may answer at once, and the key may change all the time.
		if !lease.Pause(ctx, lease.Backoff(n)) {
			return context.Cause(ctx)
		}
	}
}

// changed waits for a change of the key since index, or for half a minute, and
// returns what is there then. Without a bound it would wait for ever on a network that
// is cut.
func (h *hold) changed(ctx context.Context, index uint64) (pair *api.KVPair, last uint64, err error) {
	const block = 30 * time.Second
	// Consul adds a sixteenth at random.
	ctx, cancel := context.WithTimeout(ctx, block+block/16+5*time.Second)
	defer cancel()
	pair, meta, err := h.client.KV().Get(h.key, (&api.QueryOptions{WaitIndex: index, WaitTime: block}).WithContext(ctx))
	if err != nil {
		return nil, 0, err
	}
	return pair, meta.LastIndex, nil
}

// Refresh renews the session, and proves that it has the key.
func (h *hold) Refresh(ctx context.Context) error {
	renewed := make(chan error, 1)
	go func() {
		entry, _, err := h.client.Session().Renew(h.session, (&api.WriteOptions{}).WithContext(ctx))
		if err == nil && entry == nil {
			err = errEnded
		}
		renewed <- err
	}()
	ok, resp, _, err := h.client.Txn().Txn(api.TxnOps{h.check()},
		(&api.QueryOptions{RequireConsistent: true}).WithContext(ctx))
	if err == nil && !ok {
		err = refused(resp, swanlock.ErrLost, notOurs...)
	}
	rerr := <-renewed
	if err == nil && rerr == errEnded {
		return fmt.Errorf("%w: %w", swanlock.ErrLost, rerr)
	}
	// Anybody answers 404, so by itself that does not say that the session has ended.
	return errors.Join(err, rerr)
}

// notOurs are the answers to check when the session does not have the key.
var notOurs = []string{"failed to check session", "failed session check"}

func (h *hold) check() *api.TxnOp {
	return &api.TxnOp{KV: &api.KVTxnOp{Verb: api.KVCheckSession, Key: h.key, Session: h.session}}
}

// Release deletes the key, if the session has it, and ends the session, without which
// a request that comes late locks nothing.
func (h *hold) Release(ctx context.Context) (held bool, err error) {
	if h.session == "" {
		return false, nil
	}
	held, resp, _, err := h.client.Txn().Txn(api.TxnOps{h.check(), {KV: &api.KVTxnOp{Verb: api.KVDelete, Key: h.key}}},
		(&api.QueryOptions{}).WithContext(ctx))
	if err != nil {
		return false, err
	}
	if _, err := h.client.Session().Destroy(h.session, (&api.WriteOptions{}).WithContext(ctx)); err != nil && !held {
		return false, err
	}
	if held {
		return true, nil
	}
	if err := refused(resp, swanlock.ErrLost, notOurs...); !errors.Is(err, swanlock.ErrLost) {
		return false, lease.Refused(err) // The end of the session has freed the lock.
	}
	return false, nil
}

// end ends the session of a lock that was refused.
func (h *hold) end(ctx context.Context) {
	if h.session != "" {
		destroy(ctx, h.client, h.session)
	}
}

// destroy ends a session, also if ctx has ended.
func destroy(ctx context.Context, client *api.Client, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	_, _ = client.Session().Destroy(id, (&api.WriteOptions{}).WithContext(ctx))
}

// passes reports whether err is of an outage, which may be over soon.
func passes(err error) bool {
	var reason refusal
	var answer api.StatusError
	switch {
	case errors.As(err, &reason):
		return strings.Contains(string(reason), "invalid session") // The next one is new.
	case errors.As(err, &answer):
		// 429: the agent has too many connections of this host, or requests.
		return (answer.Code >= http.StatusInternalServerError || answer.Code == http.StatusTooManyRequests) && !errors.Is(err, errors.ErrUnsupported)
	}
	return true
}
