package main

import (
	"context"
	"errors"
	"time"

	"github.com/bsm/redislock"
	"github.com/go-redsync/redsync/v4"
	"github.com/go-redsync/redsync/v4/redis/goredis/v9"
	"github.com/redis/go-redis/v9"
)

// ttl is how long a lock in Redis or etcd lives. None lives so long here.
const ttl = time.Minute

// dialRedis returns a client that keeps a connection for each of n goroutines, but
// no more than serve it best: with 256 goroutines, 20 to 32 do (measured: 30 k
// pairs/s, with 8 or 256 connections 23 k and 26 k).
func (h *harness) dialRedis(n int) *redis.Client { return h.dialRedisOn(min(n, 32)) }

// dialRedisOn returns a client with n connections.
func (h *harness) dialRedisOn(n int) *redis.Client {
	return redis.NewClient(&redis.Options{Addr: h.redis, PoolSize: n, MinIdleConns: n})
}

// redislocks take the targets, through any client.
func redislocks(ctx context.Context, client redislock.RedisClient, targets []string, o *redislock.Options) []acquirer {
	locker := redislock.New(client)
	acquirers := make([]acquirer, len(targets))
	for i, target := range targets {
		acquirers[i] = func() (func() error, error) {
			l, err := locker.Obtain(ctx, target, ttl, o)
			if err != nil {
				return nil, err
			}
			return func() error { return l.Release(ctx) }, nil
		}
	}
	return acquirers
}

// redsyncs take the targets from one Redis.
func redsyncs(ctx context.Context, client *redis.Client, targets []string, opts ...redsync.Option) []acquirer {
	rs := redsync.New(goredis.NewPool(client))
	opts = append(opts, redsync.WithExpiry(ttl))
	acquirers := make([]acquirer, len(targets))
	for i, target := range targets {
		acquirers[i] = func() (func() error, error) {
			m := rs.NewMutex(target, opts...)
			if err := m.LockContext(ctx); err != nil {
				return nil, err
			}
			return func() error {
				if ok, err := m.UnlockContext(ctx); !ok {
					return errors.Join(errors.New("redsync: not unlocked"), err)
				}
				return nil
			}, nil
		}
	}
	return acquirers
}
