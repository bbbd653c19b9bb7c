package verify

import (
	"bytes"
	"context"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/pglock"
	"github.com/swanlake-io/swanlock/semaphore"
)

// TestLeadEnds: the history tells when a leader has resigned, so that a lock which it
// leaves behind is found to be nobody's.
func TestLeadEnds(t *testing.T) {
	var out bytes.Buffer
	w := &worker{cfg: workerConfig{Name: "w0.0", Targets: targets("test"), TTL: shortestTTL}, journal: &journal{w: &out}}
	b := builder{client: &client{worker: w, rnd: rand.New(rand.NewPCG(1, 2))}, pool: memlock.New(), label: "w0.0.pool"}
	if err := b.lead(t.Context(), shortestTTL); err != nil {
		t.Fatal(err)
	}
	written := out.String()
	r := newRecorder()
	if err := r.read(&out); err != nil {
		t.Fatal(err)
	}
	if len(r.order) != 1 || r.order[0].Outcome != OK || r.order[0].Release.Return == 0 {
		t.Fatalf("got %q, want a hold that was granted and has ended", written)
	}
	s := newStory()
	s.Targets = w.cfg.Targets
	s.Holds = r.order
	h := *r.order[0]
	s.seen(&h, (h.Release.Return+int64(margin+shortestTTL))/ms+1)
	s.End = s.Seen[0].Return
	for _, f := range Judge(s.History).Findings() {
		if f.Kind == KindNobody {
			return
		}
	}
	t.Error("the lock of a leader that has resigned is shown by the server, and nothing is found")
}

// asked notes the keys of what is asked for.
type asked struct {
	swanlock.Locker
	keys []int64
}

func (a *asked) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	a.keys = append(a.keys, int64(pglock.KeyOf(target)))
	return a.Locker.TryAcquire(ctx, target, opts...)
}

func (a *asked) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	a.keys = append(a.keys, int64(pglock.KeyOf(target)))
	return a.Locker.Acquire(ctx, target, opts...)
}

// TestSemaphoreIsSeen: the observer looks at each lock that a semaphore takes, so that
// a place which is left behind is found to be nobody's.
func TestSemaphoreIsSeen(t *testing.T) {
	target := targets("test")[semaphoreTarget]
	a := &asked{Locker: memlock.New()}
	for range target.Places {
		lock, err := semaphore.New(a, target.Places).Acquire(t.Context(), target.Name)
		if err != nil {
			t.Fatal(err)
		}
		defer lock.Release(t.Context())
	}
	for _, key := range a.keys {
		if !slices.Contains(append([]int64{target.Key}, target.Parts...), key) {
			t.Errorf("a semaphore locks the key %d, and nobody looks at it", key)
		}
	}
	if len(a.keys) <= target.Places {
		t.Errorf("it asked for %d locks only: is this looking at the right calls?", len(a.keys))
	}
}
