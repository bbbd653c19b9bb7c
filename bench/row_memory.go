package main

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// memoryRow shows what 10,000 held locks cost their process: heap and
// goroutines, with everything that was opened for them.
func memoryRow(h *harness) {
	h.poolMemory("swanlock")
	h.poolMemory("swanlock-ttl-autorefresh", swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh())
	names := targets("memory", h.many)
	if h.redis != "" {
		client := h.dialRedis(64)
		locker, rs := redislock.New(client), redsync.New(goredis.NewPool(client))
		h.memory("redislock", orientation, func(i int) (any, error) { return locker.Obtain(h.ctx, names[i], ttl, nil) })
		check(client.FlushAll(h.ctx).Err())
		h.memory("redsync", orientation, func(i int) (any, error) {
			m := rs.NewMutex(names[i], redsync.WithExpiry(ttl))
			return m, m.LockContext(h.ctx)
		})
		check(client.FlushAll(h.ctx).Err())
		check(client.Close())
	}
	if h.etcd != "" {
		client := h.dialEtcd()
		session := etcdSessions(client, 1)[0]
		h.memory("etcd", orientation, func(i int) (any, error) {
			m := concurrency.NewMutex(session, names[i])
			return m, m.Lock(h.ctx)
		})
		check(session.Close()) // which frees them
		check(client.Close())
	}
}

func (h *harness) poolMemory(name string, opts ...swanlock.Option) {
	db := h.open("pgx", "")
	defer db.Close()
	p := must(pglock.NewPool(db))
	names := targets("memory", h.many)
	locks := h.memory(name, atMost(1024), func(i int) (any, error) {
		l, err := p.TryAcquire(h.ctx, names[i], opts...)
		if err == nil {
			l.Done() // for which it may make something
		}
		return l, err
	})
	check(each(len(locks), func(i int) error { return locks[i].(swanlock.DistributedLock).Release(h.ctx) }))
	check(p.Close(context.Background()))
}

// memory measures what holding many locks takes. The names of the targets are
// there before.
func (h *harness) memory(name string, bound goal, acquire func(i int) (any, error)) []any {
	locks := make([]any, h.many)
	bytes, goroutines := usage()
	check(each(len(locks), func(i int) (err error) {
		locks[i], err = acquire(i)
		return err
	}))
	bytesThen, goroutinesThen := usage()
	runtime.KeepAlive(locks)
	perLock := orientation
	if bound != orientation {
		perLock = atMost(0.01) // some belong to the sessions
	}
	row := fmt.Sprintf("Memory/locks=%d", h.many)
	h.figure("heap a held lock", row, name, "B/lock", float64(bytesThen-bytes)/float64(h.many), bound)
	h.figure("goroutines a held lock", row, name, "goroutines/lock", max(0, float64(goroutinesThen-goroutines)/float64(h.many)), perLock)
	return locks
}

func usage() (heap int64, goroutines int) {
	var m runtime.MemStats
	for range 3 { // a finalizer's object goes with the next
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), runtime.NumGoroutine()
}
