package etcdlock

import (
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestManyAreCutShort: a lease that is kept alive for one lock does not remember ever more
// keys that were asked for without an answer.
func TestManyAreCutShort(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	l := newLocker(t, connect(t, etcd.Addr))
	held := try(t, l)
	s := l.leases.group(l.session).current
	for range 3 * maxDropped {
		e := l.newEntry("another", swanlock.Options{})
		e.key = l.line.take(e.prefix)
		if err := l.leases.take(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		e.giveBack(true)
	}
	s.mu.Lock()
	n := len(s.dropped)
	s.mu.Unlock()
	if n > maxDropped {
		t.Errorf("it looks for %d keys, want %d at most", n, maxDropped)
	}
	if held.Err() != nil {
		t.Errorf("the lock: %v", held.Err())
	}
	testserver.Release(t, held)
	time.Sleep(3 * time.Second) // What looks for the keys has ended.
}
