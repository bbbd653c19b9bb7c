package redislock

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// BenchmarkPair is an acquire and a release, and so two round trips; setnx is two of
// the shortest.
func BenchmarkPair(b *testing.B) {
	s := known(b, testserver.Redis(b))
	client := redis.NewClient(&redis.Options{Addr: s.Addr})
	defer client.Close()
	l, err := New([]redis.Scripter{client})
	if err != nil {
		b.Fatal(err)
	}
	b.Run("swanlock", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			held, err := l.TryAcquire(b.Context(), target, swanlock.WithTTL(l.maxTTL))
			if err != nil {
				b.Fatal(err)
			}
			if err := held.Release(b.Context()); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("setnx", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			client.SetArgs(b.Context(), "key", "value", redis.SetArgs{Mode: "NX", TTL: l.maxTTL})
			client.Del(b.Context(), "key")
		}
	})
}
