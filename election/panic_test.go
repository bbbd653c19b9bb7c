package election_test

import (
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

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

// TestPanicEndsTheTerm: when a callback panics at the end of a term, OnStop was called
// nonetheless, and this process is the leader no more.
func TestPanicEndsTheTerm(t *testing.T) {
	for _, at := range []string{"OnLeader", "OnStop"} {
		synctest.Test(t, func(t *testing.T) {
			space, stops := memlock.New(), 0
			e := election.New(space, "t", named("me"), election.OnStop(func() {
				if stops++; at == "OnStop" {
					panic("a bug")
				}
			}), election.OnLeader(func(owner string) {
				if owner == "" && at == "OnLeader" {
					panic("a bug")
				}
			}))
			func() {
				defer func() {
					if p := recover(); p != "a bug" {
						t.Errorf("%s: it panicked with %v", at, p)
					}
				}()
				_ = e.Run(bg, func(ctx context.Context) error {
					if at == "OnLeader" {
						space.Lose("t", nil)
						synctest.Wait()
					}
					return nil
				})
			}()
			if got := e.Leader(); stops != 1 || got != "" {
				t.Errorf("%s: OnStop was called %d times, want once; the leader is %q, want none", at, stops, got)
			}
		})
	}
}

// TestWatchPanics: what LookUp or OnLeader panics with is the panic of Watch, which its
// caller may recover.
func TestWatchPanics(t *testing.T) {
	for _, at := range []string{"LookUp", "OnLeader"} {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if p := recover(); p != "a bug" {
					t.Errorf("%s: it panicked with %v", at, p)
				}
			}()
			_ = election.New(memlock.New(), "t", election.LookUp(time.Second, func(context.Context, string) (string, error) {
				if at == "LookUp" {
					panic("a bug")
				}
				return "me", nil
			}), election.OnLeader(func(string) { panic("a bug") })).Watch(bg)
		})
	}
}

// TestLookPanics: a panic of LookUp, or of OnLeader about another leader, can be
// recovered around Run, which has ended the term.
func TestLookPanics(t *testing.T) {
	for _, at := range []string{"LookUp", "OnLeader"} {
		synctest.Test(t, func(t *testing.T) {
			space, stops := memlock.New(), 0
			other, err := space.Session().TryAcquire(t.Context(), "t")
			if err != nil {
				t.Fatal(err)
			}
			looks := 0
			e := election.New(space, "t", named("me"), election.OnStop(func() { stops++ }),
				election.OnLeader(func(owner string) {
					if owner == "other" {
						panic("a bug")
					}
				}),
				election.LookUp(time.Second, func(context.Context, string) (string, error) {
					switch looks++; {
					case at == "OnLeader":
						return "other", nil
					case looks == 1:
						if err := other.Release(t.Context()); err != nil {
							t.Error(err)
						}
						return "", nil
					}
					panic("a bug")
				}))
			func() {
				defer func() {
					if p := recover(); p != "a bug" {
						t.Errorf("%s: it panicked with %v", at, p)
					}
				}()
				_ = e.Run(t.Context(), func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
			}()
			_ = other.Release(t.Context())
			held, err := space.Session().TryAcquire(t.Context(), "t")
			if err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			if want := map[string]int{"LookUp": 1}[at]; stops != want {
				t.Errorf("%s: OnStop was called %d times, want %d", at, stops, want)
			}
			if err := held.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestCallbackEndsItsGoroutine: a callback that ends the goroutine which it is called by,
// as t.FailNow does, ends that of Run, and the lock is free.
func TestCallbackEndsItsGoroutine(t *testing.T) {
	for at, options := range map[string][]election.Option{
		"OnLeader": {election.OnLeader(func(owner string) {
			if owner == "" {
				runtime.Goexit()
			}
		})},
		"LookUp": {election.LookUp(time.Second, func(context.Context, string) (string, error) { runtime.Goexit(); return "", nil })},
	} {
		synctest.Test(t, func(t *testing.T) {
			space := memlock.New()
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				err := election.Run(t.Context(), space, "t", func(ctx context.Context) error {
					if at == "OnLeader" {
						space.Lose("t", nil)
					}
					<-ctx.Done()
					return nil
				}, options...)
				t.Errorf("%s: Run returned %v", at, err)
			}()
			<-ended
			held, err := space.TryAcquire(t.Context(), "t")
			if err != nil {
				t.Fatalf("%s: %v", at, err)
			}
			if err := held.Release(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
}
