package swanlock_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
)

func TestLogTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &safeBuffer{}
		level := &slog.LevelVar{}
		level.Set(slog.LevelDebug)
		space := memlock.New()
		l := swanlock.Observe(space, swanlock.LogTo(slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level,
			ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
				if a.Key == slog.TimeKey {
					return slog.Attr{}
				}
				return a
			}}))))
		work := func() {
			held := mustAcquire(t, l, swanlock.WithOwner("me"), swanlock.WithFence())
			if _, err := l.TryAcquire(t.Context(), "t"); err == nil {
				t.Error("got a second lock")
			}
			time.Sleep(time.Minute)
			if err := held.Release(t.Context()); err != nil {
				t.Error(err)
			}
			if _, err := l.TryAcquire(t.Context(), "a\x00b\nlevel=ERROR"); err == nil {
				t.Error("got a lock with a NUL byte")
			}
			mustAcquire(t, l, swanlock.WithOwner("me"))
			time.Sleep(time.Second)
			space.Lose("t", errors.New("session ended"))
			synctest.Wait()
		}
		loud := []string{
			`level=ERROR msg="swanlock: try" target="a\x00b\nlevel=ERROR" outcome=error took=0s err="swanlock: the target has a NUL byte"`,
			`level=WARN msg="swanlock: a lock was lost" target=t outcome=lost owner=me held=1s err="memlock: \"t\": lock lost: session ended"`,
		}
		all := []string{
			`level=DEBUG msg="swanlock: acquire" target=t outcome=acquired owner=me fence=1 took=0s`,
			`level=DEBUG msg="swanlock: try" target=t outcome=not_acquired took=0s err="memlock: \"t\": not acquired: held by \"me\""`,
			`level=DEBUG msg="swanlock: release" target=t outcome=ok owner=me fence=1 took=0s held=1m0s`,
			loud[0],
			`level=DEBUG msg="swanlock: acquire" target=t outcome=acquired owner=me took=0s`,
			loud[1],
		}
		work()
		if got, want := log.String(), strings.Join(all, "\n")+"\n"; got != want {
			t.Errorf("got:\n%s\nwant:\n%s", got, want)
		}
		log.b.Reset()
		level.Set(slog.LevelWarn)
		work()
		if got, want := log.String(), strings.Join(loud, "\n")+"\n"; got != want {
			t.Errorf("warnings alone: got:\n%s\nwant:\n%s", got, want)
		}
		if err := life(swanlock.Observe(space, swanlock.LogTo(nil)), "t"); err != nil {
			t.Error(err)
		}
	})
}
