package locktest

import (
	"context"
	"encoding/hex"
	"errors"
	"path"
	"strings"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

var brokenKeys = []brokenLocker{
	{name: "tells targets apart by spelling", caughtBy: []string{"SpellingsAreOneTarget", "SpellingsAreShared", "SpellingsWaitInOneLine"},
		backend: sessions(targets(func(target string) string { return hex.EncodeToString([]byte(target)) }))},
	{name: "tells readers apart by spelling", caughtBy: []string{"SpellingsAreShared"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if o, _ := swanlock.NewOptions(target, opts...); o.Shared && strings.HasSuffix(target, "/") {
					target = hex.EncodeToString([]byte(target))
				}
				return next(ctx, wait, target, opts)
			}
		}))},
	{name: "wakes the waiters of one spelling", caughtBy: []string{"SpellingsWaitInOneLine"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				if !wait || !strings.HasSuffix(target, "/") {
					return next(ctx, wait, target, opts)
				}
				held, err := next(ctx, false, target, opts)
				if errors.Is(err, swanlock.ErrNotAcquired) && !errors.Is(err, swanlock.ErrAlreadyHeld) {
					<-ctx.Done() // the release woke those that spell it otherwise
					err = errors.Join(err, context.Cause(ctx))
				}
				return held, err
			}
		}))},
	{name: "does not wait for another spelling", caughtBy: []string{"SpellingsWaitInOneLine"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				return next(ctx, wait && !strings.HasPrefix(target, "/"), target, opts)
			}
		}))},
	{name: "its own other spelling is held elsewhere", caughtBy: []string{"SpellingsAreOneTarget"}, backend: sessions(
		acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
			return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
				held, err := next(ctx, wait, target, opts)
				if errors.Is(err, swanlock.ErrAlreadyHeld) && target != path.Clean(target) {
					err = swanlock.ErrNotAcquired
				}
				return held, err
			}
		}))},
	{name: "the target is spelled anew", caughtBy: []string{"SpellingsAreOneTarget", "SpellingsAreShared", "SpellingsWaitInOneLine"},
		backend: sessions(info(func(i *swanlock.Info) { i.Target = path.Clean("/" + i.Target)[1:] }))},
	{name: "the target is as its first holder spelled it", caughtBy: []string{"SpellingsAreShared", "SpellingsWaitInOneLine"},
		backend: firstSpelling()},
	{name: "folds case", caughtBy: []string{"NearTargetsAreApart"}, backend: sessions(targets(strings.ToLower))},
	{name: "resolves ..", caughtBy: []string{"NearTargetsAreApart"}, backend: sessions(targets(path.Clean))},
	{name: "has no folders", caughtBy: []string{"NearTargetsAreApart"},
		backend: sessions(targets(func(target string) string { return strings.ReplaceAll(target, "/", "") }))},
	{name: "trims blanks", caughtBy: []string{"NearTargetsAreApart"}, backend: sessions(targets(strings.TrimSpace))},
}

// targets locks something else than the target, and says nothing of it.
func targets(change func(string) string) breaker {
	return acquires(func(next funcLocker, _ *memlock.Locker) funcLocker {
		return func(ctx context.Context, wait bool, target string, opts []swanlock.Option) (swanlock.DistributedLock, error) {
			held, err := next(ctx, wait, change(target), opts)
			if err != nil {
				return nil, err
			}
			return brokenLock{DistributedLock: held, info: func() swanlock.Info { i := held.Info(); i.Target = target; return i }}, nil
		}
	})
}

// firstSpelling names each lock as the first one of its key was named, as if the
// target's name were kept with its holders and not with each lock.
func firstSpelling() backend {
	spelled := make(map[swanlock.Key]string)
	return sessions(info(func(i *swanlock.Info) {
		key := swanlock.KeyOf(i.Target)
		if spelled[key] == "" {
			spelled[key] = i.Target
		}
		i.Target = spelled[key]
	}))
}
