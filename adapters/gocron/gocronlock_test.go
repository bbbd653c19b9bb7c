package gocronlock_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-co-op/gocron/v2"
	"github.com/google/uuid"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"

	"github.com/swanlake-io/swanlock"
	gocronlock "github.com/swanlake-io/swanlock/adapters/gocron"
	"github.com/swanlake-io/swanlock/election"
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

func eachDriver(t *testing.T, f func(t *testing.T, db func() *sql.DB)) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			f(t, func() *sql.DB {
				db, err := sql.Open(driver, pgserver.Default().URL())
				must(t, err)
				t.Cleanup(func() { db.Close() })
				return db
			})
		})
	}
}

func newPool(t *testing.T, db *sql.DB) *pglock.Pool {
	t.Helper()
	p, err := pglock.NewPool(db, pglock.WithHeartbeat(50*time.Millisecond))
	must(t, err)
	t.Cleanup(func() { must(t, p.Close(context.Background())) })
	return p
}

// start starts a host that runs job every interval from first on.
func start(t *testing.T, opt gocron.SchedulerOption, first time.Time, interval time.Duration, job func(), names ...string) gocron.Scheduler {
	t.Helper()
	s, err := gocron.NewScheduler(opt)
	must(t, err)
	for _, name := range names {
		_, err = s.NewJob(gocron.DurationJob(interval), gocron.NewTask(job), gocron.WithName(name),
			gocron.WithStartAt(gocron.WithStartDateTime(first)))
		must(t, err)
	}
	s.Start()
	return s
}

// TestOneHostAtATime: of three hosts, never two run a job at the same time.
func TestOneHostAtATime(t *testing.T) {
	eachDriver(t, func(t *testing.T, db func() *sql.DB) {
		var running, runs atomic.Int32
		enough := make(chan struct{})
		for range 3 {
			l := gocronlock.NewLocker(newPool(t, db()))
			s := start(t, gocron.WithDistributedLocker(l), time.Now().Add(100*time.Millisecond), 50*time.Millisecond, func() {
				if n := running.Add(1); n != 1 {
					t.Errorf("%d hosts run the job", n)
				}
				time.Sleep(20 * time.Millisecond)
				running.Add(-1)
				if runs.Add(1) == 10 {
					close(enough)
				}
			}, t.Name())
			t.Cleanup(func() { must(t, s.Shutdown()) })
		}
		select {
		case <-enough:
		case <-time.After(time.Minute):
			t.Errorf("%d runs", runs.Load())
		}
	})
}

// TestMinHold: the clocks of two hosts differ by more than a job takes. It
// is run once all the same, and again when its time has come.
func TestMinHold(t *testing.T) {
	for atLeast, want := range map[time.Duration]int32{0: 6, 30 * time.Second: 3} {
		synctest.Test(t, func(t *testing.T) {
			locks := memlock.New()
			var runs atomic.Int32
			first := time.Now().Add(time.Minute)
			var close []func()
			for host := range 2 {
				l := gocronlock.NewLocker(swanlock.WithMinHold(locks, atLeast))
				s := start(t, gocron.WithDistributedLocker(l), first.Add(time.Duration(host)*200*time.Millisecond), time.Minute,
					func() { runs.Add(1) }, "job")
				close = append(close, func() { must(t, s.Shutdown()) })
			}
			time.Sleep(3*time.Minute + time.Second)
			synctest.Wait()
			if got := runs.Load(); got != want {
				t.Errorf("held for at least %v: got %d runs in three minutes, want %d", atLeast, got, want)
			}
			begin := time.Now()
			for _, f := range close {
				f()
			}
			if took := time.Since(begin); took > 0 {
				t.Errorf("to shut down took %v", took)
			}
			held, err := locks.TryAcquire(t.Context(), "job")
			must(t, err)
			must(t, held.Release(t.Context()))
		})
	}
}

// broken is a locker whose server is gone.
type broken struct{ swanlock.Locker }

var errBroken = errors.New("no server")

func (broken) TryAcquire(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	return nil, errBroken
}

// TestTold: gocron skips a run for any error. One that says that the lock is
// held elsewhere is not logged, each other is, as is a loss.
func TestTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logged := func(want string) {
			t.Helper()
			if got := log.String(); !strings.Contains(got, want) || want == "" && got != "" {
				t.Errorf("got the log %q, want %q", got, want)
			}
			log.Reset()
		}
		told := gocronlock.WithLogger(slog.New(slog.NewTextHandler(&log, nil)))
		locks := memlock.New()
		l := gocronlock.NewLocker(locks, told)
		held, err := locks.TryAcquire(t.Context(), "job")
		must(t, err)
		defer held.Release(context.Background())
		skipped := 0
		s, err := gocron.NewScheduler(gocron.WithDistributedLocker(l))
		must(t, err)
		_, err = s.NewJob(gocron.DurationJob(time.Minute), gocron.NewTask(func() { t.Error("run") }), gocron.WithName("job"),
			gocron.WithEventListeners(gocron.AfterLockError(func(_ uuid.UUID, _ string, err error) {
				skipped++
				if !errors.Is(err, swanlock.ErrNotAcquired) {
					t.Errorf("got %v, want ErrNotAcquired", err)
				}
			})))
		must(t, err)
		s.Start()
		time.Sleep(time.Minute + time.Second)
		must(t, s.Shutdown())
		if skipped != 1 {
			t.Errorf("%d runs were skipped, want 1", skipped)
		}
		logged("")

		if k, err := gocronlock.NewLocker(broken{}, told).Lock(t.Context(), "j"); err != errBroken || k != nil {
			t.Errorf("got %v, %v", k, err)
		}
		logged("no server")
		k, err := l.Lock(t.Context(), "lost")
		must(t, err)
		locks.Lose("lost", nil)
		if err := k.Unlock(t.Context()); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
		logged("lock lost")
	})
}

// TestElector: one of two processes leads; when its session dies or it steps down, the other one does.
func TestElector(t *testing.T) {
	eachDriver(t, func(t *testing.T, db func() *sql.DB) {
		admin := db()
		var electors [2]gocronlock.Elector
		var resign [2]context.CancelFunc
		var wg sync.WaitGroup
		for i := range electors {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			resign[i] = cancel
			pool := newPool(t, db())
			wg.Go(func() { election.Run(ctx, pool, t.Name(), electors[i].Lead) })
		}
		var leader int
		leads := func() bool { // one alone
			errs := [2]error{electors[0].IsLeader(t.Context()), electors[1].IsLeader(t.Context())}
			leader = slices.Index(errs[:], nil)
			return leader >= 0 && (errors.Is(errs[1-leader], swanlock.ErrNotAcquired) || errors.Is(errs[1-leader], swanlock.ErrLost))
		}
		eventually(t, leads)
		killed := leader
		eventually(t, func() (waits bool) {
			must(t, admin.QueryRow("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)").Scan(&waits))
			return waits
		})
		_, err := admin.Exec(`SELECT pg_terminate_backend(pid) FROM pg_locks
			WHERE locktype = 'advisory' AND objsubid = 1 AND (classid::bigint << 32) + objid::bigint = $1 AND granted`, int64(swanlock.KeyOf(t.Name())))
		must(t, err)
		eventually(t, func() bool { return leads() && leader != killed })
		last := leader
		resign[last]()
		eventually(t, func() bool { return leads() && leader != last })
		resign[leader]()
		wg.Wait()
		for i := range electors {
			if err := electors[i].IsLeader(t.Context()); !errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("after the end: got %v, want ErrNotAcquired", err)
			}
		}
		if err := electors[0].Lead(t.Context()); !errors.Is(err, election.ErrResign) {
			t.Errorf("Lead by itself: got %v, want ErrResign", err)
		}
	})
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not within a minute")
		}
	}
}

// TestElectorJobs: of two hosts one runs all jobs.
func TestElectorJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		locks := memlock.New()
		var runs [2]atomic.Int32
		var schedulers []gocron.Scheduler
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for host := range 2 {
			e := new(gocronlock.Elector)
			go election.Run(ctx, locks, "lead", e.Lead)
			schedulers = append(schedulers, start(t, gocron.WithDistributedElector(e), time.Now().Add(time.Minute), time.Minute,
				func() { runs[host].Add(1) }, "a", "b", "c"))
		}
		time.Sleep(5*time.Minute + time.Second)
		if a, b := runs[0].Load(), runs[1].Load(); a+b != 15 || a*b != 0 {
			t.Errorf("got %d and %d runs, want 15 and none", a, b)
		}
		for _, s := range schedulers {
			must(t, s.Shutdown())
		}
	})
}

// TestNil: a locker that is nil is an error of each run, also if the logger is nil. A panic would end the program.
func TestNil(t *testing.T) {
	for _, log := range []*slog.Logger{nil, slog.New(slog.DiscardHandler)} {
		l := gocronlock.NewLocker(nil, nil, gocronlock.WithLogger(log))
		if _, err := l.Lock(t.Context(), "job"); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("Lock: got %v, want an error that is not ErrNotAcquired", err)
		}
	}
}

// TestLockOptions: the options of the lock are those that were given.
func TestLockOptions(t *testing.T) {
	locks := memlock.New()
	k, err := gocronlock.NewLocker(locks, gocronlock.WithLockOptions(swanlock.WithOwner("me"))).Lock(t.Context(), "job")
	must(t, err)
	if _, err := locks.TryAcquire(t.Context(), "job"); err == nil || !strings.Contains(err.Error(), `held by "me"`) {
		t.Errorf("got %v, want that it is held by me", err)
	}
	must(t, k.Unlock(t.Context()))
}

// TestLostIsNoLeader: a process whose lock is lost leads no more, though its term has not
// ended yet. What fails is written to slog's default logger.
func TestLostIsNoLeader(t *testing.T) {
	var log bytes.Buffer
	usual := slog.Default()
	slog.SetDefault(slog.New(slog.NewTextHandler(&log, nil)))
	defer slog.SetDefault(usual)
	if _, err := gocronlock.NewLocker(broken{}).Lock(t.Context(), "j"); err != errBroken || !strings.Contains(log.String(), "target=j error=\"no server\"") {
		t.Errorf("got %v, and the log %q", err, log.String())
	}
	locks := memlock.New()
	synctest.Test(t, func(t *testing.T) {
		e := new(gocronlock.Elector)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- election.Run(ctx, lostSlowly{locks}, "lead", e.Lead)
		}()
		synctest.Wait()
		must(t, e.IsLeader(t.Context()))
		locks.Lose("lead", nil)
		if err := e.IsLeader(t.Context()); !errors.Is(err, swanlock.ErrLost) {
			t.Errorf("got %v, want ErrLost", err)
		}
		stop()
		<-ended
	})
}

// A lostSlowly's locks do not close Done at a loss, which Err tells of.
type lostSlowly struct{ swanlock.Locker }

type slowLock struct{ swanlock.DistributedLock }

func (l lostSlowly) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	held, err := l.Locker.Acquire(ctx, target, opts...)
	return slowLock{held}, err
}

func (slowLock) Done() <-chan struct{} { return nil }
