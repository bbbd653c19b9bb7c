package election_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/memlock"
)

// TestCallbackPanics: a callback that panics leaves no lock behind.
func TestCallbackPanics(t *testing.T) {
	bug := func() { panic("a bug") }
	for what, opt := range map[string]election.Option{
		"OnStart":  election.OnStart(func(swanlock.DistributedLock) { bug() }),
		"OnStop":   election.OnStop(bug),
		"OnLeader": election.OnLeader(func(string) { bug() }),
	} {
		t.Run(what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				space := memlock.New()
				func() {
					defer func() {
						if recover() == nil {
							t.Error("the panic was not passed on")
						}
					}()
					_ = election.Run(t.Context(), space, "t", func(context.Context) error { return election.ErrResign }, opt)
				}()
				held, err := space.Session().TryAcquire(t.Context(), "t")
				if err != nil {
					t.Fatal(err)
				}
				if err := held.Release(t.Context()); err != nil {
					t.Error(err)
				}
			})
		})
	}
}
