package redislock

import (
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/internal/testserver"
)

// A server takes a new replication id when it has had no replica for a while, and has
// forgotten nothing.
func TestNewReplicationID(t *testing.T) {
	t.Parallel()
	s, replica := known(t, testserver.Redis(t)), testserver.Redis(t)
	admin, to := dial(t, s.Addr), dial(t, replica.Addr)
	id := func() string {
		return admin.InfoMap(t.Context(), "replication").Item("Replication", "master_replid")
	}
	before := id()
	follow(t, to, s.Addr)
	inStep(t, to, admin)
	if err := admin.ConfigSet(t.Context(), "repl-backlog-ttl", "1").Err(); err != nil {
		t.Fatal(err)
	}
	follow(t, to, "")
	eventually(t, "the server has a new id", func() bool { return id() != before })
	l := lockerOn(t, []string{s.Addr})
	for range 2 {
		testserver.Release(t, testserver.Try(t, l, target))
	}
	if born := admin.Get(t.Context(), bornKey).Val(); !strings.HasSuffix(born, ":"+id()) {
		t.Errorf("%s: got %q, want the new id %s", bornKey, born, id())
	}
}
