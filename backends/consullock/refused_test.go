package consullock

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

const root = "5f1c9e1e-8d7b-4a54-9a5b-0d6e4d6f7a11"

// acls has a Consul know tokens, and allow everything to those that have none.
const acls = `acl { enabled = true, default_policy = "allow", tokens { initial_management = "` + root + `" } }`

// withToken returns a Locker with a token that has rules, and a function that changes
// them.
func withToken(t *testing.T, addr, rules string) (l *Locker, change func(rules string)) {
	t.Helper()
	boss := &api.WriteOptions{Token: root}
	c := client(t, addr)
	policy, _, err := c.ACL().PolicyCreate(&api.ACLPolicy{Name: "locks", Rules: rules}, boss)
	if err != nil {
		t.Fatal(err)
	}
	token, _, err := c.ACL().TokenCreate(&api.ACLToken{Policies: []*api.ACLTokenPolicyLink{{ID: policy.ID}}}, boss)
	if err != nil {
		t.Fatal(err)
	}
	c.SetHeaders(http.Header{"X-Consul-Token": {token.SecretID}})
	if l, err = New(c, WithSessionTTL(6*time.Second)); err != nil {
		t.Fatal(err)
	}
	return l, func(rules string) {
		t.Helper()
		policy.Rules = rules
		if _, _, err := client(t, addr).ACL().PolicyUpdate(policy, boss); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	mayNothing = `key_prefix "swanlock/" { policy = "deny" }`
	mayRead    = `key_prefix "swanlock/" { policy = "read" }`
	mayWrite   = `key_prefix "swanlock/" { policy = "write" }`
)

// TestDenied asks with a token that may make sessions, and may not lock keys. That
// nobody holds the lock, and that nobody ever gets it, is not ErrNotAcquired.
func TestDenied(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s", acls)
	l, change := withToken(t, consul.Addr, mayRead)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	for what, call := range calls(l) {
		_, err := call(ctx, target)
		if err == nil || errors.Is(err, swanlock.ErrNotAcquired) || !strings.Contains(err.Error(), "Permission denied") {
			t.Errorf("%s with a token that may not lock: got %v, want Consul's error, and not ErrNotAcquired", what, err)
		}
	}
	if sessions, _, err := client(t, consul.Addr).Session().List(nil); err != nil || len(sessions) != 0 {
		t.Errorf("got %d sessions, %v, want none", len(sessions), err)
	}

	// What a token may not do says nothing about a lock that is held.
	change(mayWrite)
	held := try(t, l)
	change(mayNothing)
	if err := held.Refresh(t.Context()); err == nil || errors.Is(err, swanlock.ErrLost) {
		t.Errorf("Refresh with a token that may not read: got %v, want an error, and not ErrLost", err)
	}
	change(mayWrite)
	if err := held.Refresh(t.Context()); err != nil {
		t.Errorf("Refresh: %v", err)
	}
	// The end of its session frees it also if the token may not use its key.
	change(mayNothing)
	if err := held.Release(t.Context()); !errors.Is(err, swanlock.ErrLost) || !strings.Contains(err.Error(), "Permission denied") {
		t.Errorf("Release with a token that may not write: got %v, want ErrLost and Consul's error", err)
	}
	testserver.Release(t, try(t, newLocker(t, consul.Addr)))
}

func calls(l *Locker) map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	return map[string]func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error){
		"TryAcquire": l.TryAcquire, "Acquire": l.Acquire,
	}
}

// TestSessionIsEnded ends the session between the request that makes it and the one
// that locks the key.
func TestSessionIsEnded(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	l := newLocker(t, consul.Addr)
	h := l.newHold(must(l.request(target, nil)))
	if err := h.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := l.client.Session().Destroy(h.session, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := h.lock(t.Context()); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("lock by a session that has ended: got %v, want an error, and not ErrNotAcquired", err)
	}
}

// TestLongTarget locks a target that is longer than what Consul takes as a value.
func TestLongTarget(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for what, call := range calls(newLocker(t, consul.Addr)) {
		held, err := call(ctx, strings.Repeat("x", 1<<20))
		if err != nil {
			t.Errorf("%s of a target of a megabyte: %v", what, err)
			continue
		}
		testserver.Release(t, held)
	}
}

// TestManyTargets waits for more targets than an agent serves connections of one host.
func TestManyTargets(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s", `limits { http_max_conns_per_client = 10 }`)
	l := newLocker(t, consul.Addr, WithSessionTTL(time.Minute))
	var held []swanlock.DistributedLock
	var waits []*testserver.Call
	for i := range 8 {
		name := target + strings.Repeat("x", i)
		held = append(held, testserver.Try(t, l, name))
	}
	for range 2 {
		other := newLocker(t, consul.Addr, WithSessionTTL(time.Minute))
		for _, h := range held {
			waits = append(waits, testserver.Go(t, func() (swanlock.DistributedLock, error) {
				got, err := other.Acquire(t.Context(), h.Info().Target)
				if err == nil {
					testserver.Release(t, got)
				}
				return got, err
			}))
		}
	}
	time.Sleep(2 * time.Second)
	for _, h := range held {
		testserver.Eventually(t, "Release", func() error { return h.Release(t.Context()) })
	}
	for _, w := range waits {
		w.MustGet()
	}
}

// TestTurn: one caller at a time waits at the server. One whose context ends meanwhile, or
// has ended, leaves with an error, and when all have left nothing is kept of the key.
func TestTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := must(New(new(api.Client)))
		leave, err := l.turn(t.Context(), "key")
		if err != nil {
			t.Fatal(err)
		}
		for _, patience := range []time.Duration{0, time.Second} {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			begun := time.Now()
			if _, err := l.turn(ctx, "key"); !errors.Is(err, context.DeadlineExceeded) || time.Since(begun) != patience {
				t.Errorf("beside another: got %v after %v, want DeadlineExceeded after %v", err, time.Since(begun), patience)
			}
		}
		leave()
		if leave, err = l.turn(t.Context(), "key"); err != nil {
			t.Fatal(err)
		}
		leave()
		if len(l.turns) != 0 {
			t.Errorf("%d turns are kept", len(l.turns))
		}
	})
}

// TestQueriesThatDoNotBlock has a server, or a proxy before it, answer each blocking
// query at once. A waiter must not ask without a pause.
func TestQueriesThatDoNotBlock(t *testing.T) {
	t.Parallel()
	for _, index := range []string{"", "0", "7"} {
		var asked atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if index != "" {
				w.Header().Set("X-Consul-Index", index)
			}
			w.Write([]byte(`[{"Key": "swanlock/1", "Session": "theirs"}]`))
		}))
		defer server.Close()
		l := newLocker(t, strings.TrimPrefix(server.URL, "http://"))
		h := l.newHold(must(l.request(target, nil)))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.freed(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("freed: got %v, want DeadlineExceeded", err)
		}
		if n := asked.Load(); n > 200 {
			t.Errorf("index %q: asked %d times in a second", index, n)
		}
	}
}

// TestNoSessionIsLeft gives up a try when its session was made, and the answer is on its
// way. The session would live for twice the TTL, which may be hours.
func TestNoSessionIsLeft(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	proxy := testserver.NewProxy(t, consul.Addr)
	l, c := newLocker(t, proxy.Addr), client(t, consul.Addr)
	sessions := func(want int) error {
		got, _, err := c.Session().List(nil)
		if err == nil && len(got) != want {
			err = fmt.Errorf("there are %d, want %d", len(got), want)
		}
		return err
	}
	for what, call := range calls(l) {
		proxy.CutAnswers()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		returned := make(chan error)
		go func() {
			_, err := call(ctx, target, swanlock.WithTTL(time.Hour))
			returned <- err
		}()
		testserver.Eventually(t, "a session is made", func() error { return sessions(1) })
		if err := <-returned; !errors.Is(err, swanlock.ErrNotAcquired) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: got %v, want ErrNotAcquired and DeadlineExceeded", what, err)
		}
		proxy.Heal()
		testserver.Eventually(t, "it is ended", func() error { return sessions(0) })
	}
}

// TestSessionIsEndedAgain: a session whose lock was refused, and whose end Consul could not
// carry out, is ended again: a request that comes late must lock nothing.
func TestSessionIsEndedAgain(t *testing.T) {
	t.Parallel()
	consul := testserver.Consul(t, "1s")
	address, err := url.Parse("http://" + consul.Addr)
	if err != nil {
		t.Fatal(err)
	}
	var locks, ends atomic.Int32
	pass := httputil.NewSingleHostReverseProxy(address)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/txn" && locks.Add(1) == 1 || strings.HasPrefix(r.URL.Path, "/v1/session/destroy/") && ends.Add(1) == 1 {
			http.Error(w, "no leader", http.StatusInternalServerError)
			return
		}
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	t.Cleanup(http.DefaultTransport.(*http.Transport).CloseIdleConnections)
	l := newLocker(t, strings.TrimPrefix(front.URL, "http://"))
	if _, err := l.TryAcquire(t.Context(), target); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("got %v, want the error of the server", err)
	}
	if left, _, err := client(t, consul.Addr).Session().List(nil); len(left) != 0 || err != nil || ends.Load() < 2 {
		t.Errorf("%d sessions are left, %v, after %d requests to end one", len(left), err, ends.Load())
	}
}
