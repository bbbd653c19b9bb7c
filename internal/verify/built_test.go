package verify

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/swanlake-io/swanlock/memlock"
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
