package cronlock_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/robfig/cron/v3"

	"github.com/swanlake-io/swanlock"
	cronlock "github.com/swanlake-io/swanlock/adapters/cron"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/pglock"
)

func TestMain(m *testing.M) { pgserver.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A log keeps what it is told.
type log struct {
	mu   sync.Mutex
	told []string
}

func (l *log) Info(msg string, kv ...any)             { l.tell("info", msg, nil) }
func (l *log) Error(err error, msg string, kv ...any) { l.tell("error", msg, err) }
func (l *log) tell(level, msg string, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.told = append(l.told, fmt.Sprint(level, " ", msg, " ", err))
}

func (l *log) want(t *testing.T, want ...string) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if !slices.Equal(l.told, want) {
		t.Errorf("got the log %q, want %q", l.told, want)
	}
	l.told = nil
}

// A schedule is every interval from a time on, by the clock of a host.
type schedule struct {
	first    time.Time
	interval time.Duration
}

func (s schedule) Next(now time.Time) time.Time {
	next := s.first
	for !next.After(now) {
		next = next.Add(s.interval)
	}
	return next
}

// TestOneHost: of three hosts, never two run a job at the same time.
func TestOneHost(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			var running, runs atomic.Int32
			enough := make(chan struct{})
			for range 3 {
				db, err := sql.Open(driver, pgserver.Default().URL())
				must(t, err)
				t.Cleanup(func() { db.Close() })
				p, err := pglock.NewPool(db)
				must(t, err)
				t.Cleanup(func() { must(t, p.Close(context.Background())) })
				c := cron.New()
				c.Schedule(schedule{time.Now(), 30 * time.Millisecond}, cron.NewChain(cronlock.OneHost(p, t.Name())).Then(cron.FuncJob(func() {
					if n := running.Add(1); n != 1 {
						t.Errorf("%d hosts run the job", n)
					}
					time.Sleep(20 * time.Millisecond)
					running.Add(-1)
					if runs.Add(1) == 10 {
						close(enough)
					}
				})))
				c.Start()
				t.Cleanup(func() { <-c.Stop().Done() })
			}
			select {
			case <-enough:
			case <-time.After(time.Minute):
				t.Errorf("%d runs", runs.Load())
			}
		})
	}
}

// TestMinHold: the clocks of two hosts differ by more than a job takes. It
// is run once all the same, and again when its time has come.
func TestMinHold(t *testing.T) {
	for atLeast, want := range map[time.Duration]int32{0: 6, 30 * time.Second: 3} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			locks, log := memlock.New(), new(log)
			var runs atomic.Int32
			first := time.Now().Add(time.Minute)
			for host := range 2 {
				c := cron.New()
				c.Schedule(schedule{first.Add(time.Duration(host) * 200 * time.Millisecond), time.Minute}, cron.NewChain(cronlock.OneHost(swanlock.WithMinHold(locks, atLeast), "job",
					cronlock.WithContext(ctx), cronlock.WithLogger(log))).Then(cron.FuncJob(func() { runs.Add(1) })))
				c.Start()
				defer c.Stop()
			}
			time.Sleep(3*time.Minute + time.Second)
			if got := runs.Load(); got != want {
				t.Errorf("held for at least %v: got %d runs in three minutes, want %d", atLeast, got, want)
			}
			skipped := make([]string, 6-want)
			for i := range skipped {
				skipped[i] = "info skip <nil>"
			}
			log.want(t, skipped...)
			cancel() // and nothing is kept any more
			synctest.Wait()
			held, err := locks.TryAcquire(t.Context(), "job")
			must(t, err)
			must(t, held.Release(t.Context()))
		})
	}
}

// broken is a locker whose server is gone.
type broken struct{ swanlock.Locker }

func (broken) TryAcquire(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	return nil, errors.New("no server")
}

// TestEnds: what a job is told, and what is logged; and that the lock is free
// after it.
func TestEnds(t *testing.T) {
	locks, log := memlock.New(), new(log)
	ctx, cancel := context.WithCancelCause(t.Context())
	wrap := cronlock.OneHost(locks, "job", cronlock.WithLogger(log), cronlock.WithContext(ctx),
		cronlock.WithLockOptions(swanlock.WithOwner("me")))
	held := func() bool {
		l, err := locks.TryAcquire(t.Context(), "job")
		if err == nil {
			must(t, l.Release(t.Context()))
		}
		return err != nil
	}

	ran := false
	wrap(cron.FuncJob(func() {
		_, err := locks.TryAcquire(t.Context(), "job")
		ran = err != nil && strings.Contains(err.Error(), `held by "me"`)
	})).Run()
	if !ran || held() {
		t.Error("the job does not run under its lock")
	}
	cron.NewChain(cron.Recover(log), wrap).Then(cron.FuncJob(func() { panic("oh") })).Run()
	if held() {
		t.Error("the lock is held after a panic")
	}
	log.want(t, "error panic oh")

	wrap(cronlock.Job(func(ctx context.Context) {
		locks.Lose("job", errors.New("killed"))
		<-ctx.Done()
		if !errors.Is(context.Cause(ctx), swanlock.ErrLost) {
			t.Errorf("got %v, want ErrLost", context.Cause(ctx))
		}
	})).Run()
	log.want(t, `error release memlock: "job": lock lost: killed`)

	wrap(cronlock.Job(func(ctx context.Context) {
		cancel(errors.New("shutdown"))
		<-ctx.Done()
	})).Run()
	log.want(t)
	wrap(cron.FuncJob(func() { t.Error("run") })).Run()
	log.want(t, "info skip <nil>")
	cronlock.OneHost(broken{}, "job", cronlock.WithLogger(log))(cron.FuncJob(func() { t.Error("run") })).Run()
	log.want(t, "error skip no server")
	cronlock.Job(func(ctx context.Context) { ran = ctx.Err() != nil }).Run()
	if ran || held() {
		t.Error("a Job alone has a context that ends")
	}
}

// TestNil: a locker that is nil skips the run and says so, unless the logger is nil. A panic would end the
// program, since cron recovers from none by itself.
func TestNil(t *testing.T) {
	log := new(log)
	cronlock.OneHost(nil, "job", nil, cronlock.WithLogger(log))(cronlock.Job(func(context.Context) { t.Error("the job was run") })).Run()
	log.want(t, "error skip swanlock: the locker is nil")
	cronlock.OneHost(nil, "job", cronlock.WithLogger(nil))(cronlock.Job(func(context.Context) { t.Error("the job was run") })).Run()
}

// A watched Locker calls released as a lock is released.
type watched struct {
	swanlock.Locker
	released func()
}

type watchedLock struct {
	swanlock.DistributedLock
	released func()
}

func (l watched) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	held, err := l.Locker.TryAcquire(ctx, target, opts...)
	return watchedLock{held, l.released}, err
}

func (l watchedLock) Release(ctx context.Context) error {
	l.released()
	return l.DistributedLock.Release(ctx)
}

// TestEndsBeforeTheRelease: what a job has left running is told to stop before the lock is
// released, and so before another host runs the job.
func TestEndsBeforeTheRelease(t *testing.T) {
	var left context.Context
	wrap := cronlock.OneHost(watched{memlock.New(), func() {
		if left == nil || left.Err() == nil {
			t.Error("the context of the job lives as the lock is released")
		}
	}}, "job")
	wrap(cronlock.Job(func(ctx context.Context) { left = ctx })).Run()
	if left == nil {
		t.Error("the job was not run")
	}
}
