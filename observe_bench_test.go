package swanlock_test

import (
	"context"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

type nothing struct{}

func (nothing) Begin(ctx context.Context, _ swanlock.Op, _ string) context.Context { return ctx }
func (nothing) End(context.Context, swanlock.Event)                                {}

type direct struct{ nothing }

func (direct) NeverBlocks() {}

// BenchmarkObserve shows what observing costs. An op is an acquire and a release
// in memory.
func BenchmarkObserve(b *testing.B) {
	for _, c := range []struct {
		name      string
		observers []swanlock.Observer
	}{{"none", nil}, {"nil", []swanlock.Observer{nil}}, {"one", []swanlock.Observer{nothing{}}}, {"direct", []swanlock.Observer{direct{}}}, {"two", []swanlock.Observer{nothing{}, nothing{}}}} {
		b.Run(c.name, func(b *testing.B) {
			l, ctx := swanlock.Observe(memlock.New(), c.observers...), context.Background()
			b.ReportAllocs()
			for b.Loop() {
				held, err := l.TryAcquire(ctx, "t")
				if err == nil {
					err = held.Release(ctx)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
