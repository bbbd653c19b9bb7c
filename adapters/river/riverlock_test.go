package riverlock_test

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverdatabasesql"
	"github.com/riverqueue/river/rivermigrate"
	"github.com/riverqueue/river/rivertype"

	"github.com/swanlake-io/swanlock"
	riverlock "github.com/swanlake-io/swanlock/adapters/river"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/pglock"
)

var _ rivertype.WorkerMiddleware = (*riverlock.Middleware)(nil)

func TestMain(m *testing.M) { pgserver.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t *testing.T, driver string) *sql.DB {
	t.Helper()
	db, err := sql.Open(driver, pgserver.Default().URL())
	must(t, err)
	t.Cleanup(func() { db.Close() })
	return db
}

// eachDriver has river's own tables reached by each driver as well.
func eachDriver(t *testing.T, f func(t *testing.T, driver string)) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			migrator, err := rivermigrate.New(riverdatabasesql.New(open(t, driver)), nil)
			must(t, err)
			_, err = migrator.Migrate(t.Context(), rivermigrate.DirectionUp, nil)
			must(t, err)
			f(t, driver)
		})
	}
}

type Args struct {
	Key string `json:"key"`
}

func (Args) Kind() string { return "test" }

type soon struct{}

func (soon) NextRetry(*rivertype.JobRow) time.Time { return time.Now().Add(10 * time.Millisecond) }

// start starts a host that works the jobs of queue.
func start(t *testing.T, db *sql.DB, queue string, m *riverlock.Middleware, work func(context.Context, *river.Job[Args]) error) (*river.Client[*sql.Tx], <-chan *river.Event) {
	t.Helper()
	workers := river.NewWorkers()
	river.AddWorker(workers, river.WorkFunc(work))
	c, err := river.NewClient(riverdatabasesql.New(db), &river.Config{
		FetchCooldown: 10 * time.Millisecond, FetchPollInterval: 20 * time.Millisecond,
		Logger:     slog.New(slog.DiscardHandler),
		Middleware: []rivertype.Middleware{m}, RetryPolicy: soon{}, Workers: workers,
		Queues: map[string]river.QueueConfig{queue: {MaxWorkers: 10}},
	})
	must(t, err)
	events, _ := c.Subscribe(river.EventKindJobCompleted, river.EventKindJobFailed, river.EventKindJobSnoozed)
	must(t, c.Start(context.Background()))
	t.Cleanup(func() { must(t, c.Stop(context.Background())) })
	return c, events
}

// TestOneAtATime: two hosts work the jobs of a key one at a time, and those of
// different keys together. A job that has to wait loses no attempt.
func TestOneAtATime(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		var running, most atomic.Int32
		var all [2]<-chan *river.Event
		var client *river.Client[*sql.Tx]
		free := make(chan struct{}, 8)
		for host := range 2 {
			p, err := pglock.NewPool(open(t, driver))
			must(t, err)
			t.Cleanup(func() { must(t, p.Close(context.Background())) })
			m := riverlock.OneAtATime(p, func(job *rivertype.JobRow) string {
				if string(job.EncodedArgs) == `{"key": "free"}` {
					return ""
				}
				return t.Name()
			}, riverlock.WithSnooze(50*time.Millisecond))
			client, all[host] = start(t, open(t, driver), driver, m, func(ctx context.Context, job *river.Job[Args]) error {
				if _, ok := riverlock.Lock(ctx); ok != (job.Args.Key != "free") {
					t.Errorf("the job %q has a lock: %v", job.Args.Key, ok)
				}
				if job.Args.Key == "free" {
					free <- struct{}{}
					return nil
				}
				n := running.Add(1)
				most.Store(max(n, most.Load()))
				select {
				case <-free: // others are worked meanwhile
				case <-time.After(time.Minute):
					t.Error("jobs of other keys wait too")
				}
				running.Add(-1)
				return nil
			})
		}
		var jobs []river.InsertManyParams
		for _, key := range []string{"same", "same", "same", "same", "free", "free", "free", "free"} {
			jobs = append(jobs, river.InsertManyParams{Args: Args{key}, InsertOpts: &river.InsertOpts{Queue: driver}})
		}
		_, err := client.InsertMany(t.Context(), jobs)
		must(t, err)
		completed, snoozed := 0, 0
		for completed < len(jobs) {
			var e *river.Event
			select {
			case e = <-all[0]:
			case e = <-all[1]:
			case <-time.After(time.Minute):
				t.Fatalf("%d jobs were completed", completed)
			}
			switch e.Kind {
			case river.EventKindJobCompleted:
				completed++
				if e.Job.Attempt != 1 {
					t.Errorf("a job that waited used %d attempts", e.Job.Attempt)
				}
			case river.EventKindJobSnoozed:
				snoozed++
			default:
				t.Errorf("a job failed: %v", e.Job.Errors)
			}
		}
		if most.Load() != 1 || snoozed == 0 {
			t.Errorf("%d jobs of a key at once, %d snoozed", most.Load(), snoozed)
		}
	})
}

// TestLoss: a job whose lock is lost is told, and tried again, although it says
// that it succeeded.
func TestLoss(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		locks, queue := memlock.New(), driver+"_loss"
		client, events := start(t, open(t, driver), queue, riverlock.OneAtATime(locks, func(*rivertype.JobRow) string { return "k" }),
			func(ctx context.Context, job *river.Job[Args]) error {
				if job.Attempt == 1 {
					locks.Lose("k", nil)
					<-ctx.Done()
					if !errors.Is(context.Cause(ctx), swanlock.ErrLost) {
						t.Errorf("got %v, want ErrLost", context.Cause(ctx))
					}
				}
				return nil
			})
		_, err := client.Insert(t.Context(), Args{"k"}, &river.InsertOpts{Queue: queue})
		must(t, err)
		for _, want := range []river.EventKind{river.EventKindJobFailed, river.EventKindJobCompleted} {
			select {
			case e := <-events:
				if e.Kind != want {
					t.Errorf("got %v, want %v", e.Kind, want)
				}
			case <-time.After(time.Minute):
				t.Fatal("no event")
			}
		}
	})
}

// A locker whose locks have an error at their release, or that has one itself.
type broken struct {
	swanlock.Locker
	acquire, release error
}

func (b broken) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	if b.acquire != nil {
		return nil, b.acquire
	}
	held, err := b.Locker.TryAcquire(ctx, target, opts...)
	return badRelease{held, b.release}, err
}

type badRelease struct {
	swanlock.DistributedLock
	err error
}

func (b badRelease) Release(ctx context.Context) error {
	return errors.Join(b.DistributedLock.Release(ctx), b.err)
}

// TestErrors: what river gets to see, and that the lock is free afterwards.
func TestErrors(t *testing.T) {
	locks, errOther := memlock.New(), errors.New("other")
	stopped, stop := context.WithCancelCause(t.Context())
	stop(errOther)
	var snooze *rivertype.JobSnoozeError
	for name, c := range map[string]struct {
		ctx   context.Context
		locks swanlock.Locker
		held  bool
		work  func(context.Context) error
		check func(error) bool
	}{
		"free":            {check: func(err error) bool { return err == nil }},
		"held":            {held: true, check: func(err error) bool { return errors.As(err, &snooze) && snooze.Duration == time.Minute }},
		"the client ends": {held: true, ctx: stopped, check: func(err error) bool { return err == errOther }},
		"no server":       {locks: broken{acquire: errOther}, check: func(err error) bool { return err == errOther }},
		"audit":           {locks: broken{Locker: locks, release: pglock.ErrAudit}, check: func(err error) bool { return err == nil }},
		"job's error":     {work: func(context.Context) error { return errOther }, check: func(err error) bool { return err == errOther }},
		"panic":           {work: func(context.Context) error { panic(errOther) }, check: func(err error) bool { return err == errOther }},
		"snoozed by the job, and lost": {
			work: func(context.Context) error { locks.Lose("k", nil); return river.JobSnooze(time.Hour) },
			check: func(err error) bool {
				return errors.As(err, &snooze) && snooze.Duration == time.Hour && errors.Is(err, swanlock.ErrLost)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			if c.locks == nil {
				c.locks = locks
			}
			if c.held {
				held, err := locks.TryAcquire(t.Context(), "k")
				must(t, err)
				defer held.Release(context.Background())
			}
			m := riverlock.OneAtATime(c.locks, func(*rivertype.JobRow) string { return "k" }, riverlock.WithSnooze(time.Minute))
			var job context.Context
			err := func() (err error) {
				defer func() {
					if p := recover(); p != nil {
						err = p.(error)
					}
				}()
				return m.Work(c.ctx, &rivertype.JobRow{}, func(ctx context.Context) error {
					job = ctx
					if c.work != nil {
						return c.work(ctx)
					}
					return nil
				})
			}()
			if !c.check(err) {
				t.Errorf("got %v", err)
			}
			if (c.held || name == "no server") != (job == nil) || job != nil && job.Err() == nil {
				t.Errorf("the job's context after its end: %v", job)
			}
			if !c.held {
				held, err := locks.TryAcquire(t.Context(), "k")
				must(t, err)
				must(t, held.Release(t.Context()))
			}
		})
	}
}

// TestNegativeSnooze: a job whose key is taken is snoozed all the same, and loses no
// attempt by a panic of river's.
func TestNegativeSnooze(t *testing.T) {
	locks := memlock.New()
	held, err := locks.TryAcquire(t.Context(), "k")
	must(t, err)
	m := riverlock.OneAtATime(locks, func(*rivertype.JobRow) string { return "k" }, riverlock.WithSnooze(-time.Second))
	err = m.Work(t.Context(), &rivertype.JobRow{}, func(context.Context) error { t.Error("the job was worked"); return nil })
	if snooze, ok := errors.AsType[*rivertype.JobSnoozeError](err); !ok || snooze.Duration != 0 {
		t.Errorf("got %v, want a snooze of 0", err)
	}
	must(t, held.Release(t.Context()))
}

// TestNil: a locker that is nil is an error of each job.
func TestNil(t *testing.T) {
	m := riverlock.OneAtATime(nil, func(*rivertype.JobRow) string { return "job" }, nil)
	if err := m.Work(t.Context(), &rivertype.JobRow{}, func(context.Context) error { t.Error("the job was worked"); return nil }); err == nil {
		t.Error("Work: got nil, want an error")
	}
}

// TestLock: the job finds its lock, which has the options that were given.
func TestLock(t *testing.T) {
	m := riverlock.OneAtATime(memlock.New(), func(*rivertype.JobRow) string { return "k" }, riverlock.WithLockOptions(swanlock.WithOwner("me")))
	must(t, m.Work(t.Context(), &rivertype.JobRow{}, func(ctx context.Context) error {
		held, ok := riverlock.Lock(ctx)
		if !ok || held.Info().Target != "k" || held.Info().Owner != "me" || held.Err() != nil {
			t.Errorf("got %v, %t", held, ok)
		}
		return nil
	}))
	if held, ok := riverlock.Lock(t.Context()); ok || held != nil {
		t.Errorf("beside a job: got %v, %t", held, ok)
	}
}
