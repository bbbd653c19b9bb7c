package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/url"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/pressly/goose/v3"

	"github.com/swanlake-io/swanlock/migrations"
)

type config struct {
	dsn             string
	duration, every time.Duration
	progress        io.Writer
}

// A soaking is one run. What it writes is in a schema of its own, named like
// the run, and its backends are known by their application_name.
type soaking struct {
	config
	name     string
	watch    *sql.DB // samples, and terminates backends
	loads    []*sql.DB
	stations []*station
	workers  []*worker
	*report
}

// soak runs the load. The report is nil if there was none.
func soak(ctx context.Context, cfg config) (_ *report, err error) {
	s := &soaking{config: cfg, name: fmt.Sprintf("swanlock_soak_%x", rand.Uint32()), report: &report{tally: &tally{}}}
	if s.watch, err = sql.Open("pgx", withParams(cfg.dsn, "application_name", s.name+"_watch", "search_path", s.name)); err != nil {
		return nil, err
	}
	defer s.watch.Close()
	s.watch.SetMaxOpenConns(2) // one is goose's for a while
	if _, err := s.watch.ExecContext(ctx, "CREATE SCHEMA "+s.name); err != nil {
		return nil, fmt.Errorf("cannot create the schema %s: %w", s.name, err)
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if _, derr := s.watch.ExecContext(clean, "DROP SCHEMA "+s.name+" CASCADE"); derr != nil {
			err = errors.Join(err, fmt.Errorf("drop schema %s yourself: %w", s.name, derr))
		}
	}()
	if err := s.migrate(ctx); err != nil {
		return nil, err
	}
	for _, driver := range []string{"postgres", "pgx"} {
		db, err := sql.Open(driver, withParams(cfg.dsn, "application_name", s.name, "search_path", s.name))
		if err != nil {
			return nil, err
		}
		defer db.Close()
		s.loads = append(s.loads, db)
		s.stations = append(s.stations, stationsOn(db, driver)...)
	}
	for _, st := range s.stations {
		if err := st.ready(ctx); err != nil {
			return nil, fmt.Errorf("%s: %w", st.name, err)
		}
		n := 1
		if st.heals {
			n = 3
		}
		for range n {
			i := len(s.workers)
			s.workers = append(s.workers, &worker{station: st, run: s.name + "/", own: fmt.Sprint(s.name, "/own", i), first: i})
		}
	}
	return s.report, s.run(ctx)
}

func (s *soaking) migrate(ctx context.Context) error {
	p, err := goose.NewProvider(goose.DialectPostgres, s.watch, migrations.FS, goose.WithTableName(migrations.Table))
	if err == nil {
		_, err = p.Up(ctx)
	}
	return err
}

// run alternates load and rest until the time is over, or ctx has ended.
func (s *soaking) run(ctx context.Context) error {
	defer func() {
		for _, st := range s.stations {
			clean, cancel := context.WithTimeout(context.Background(), patience)
			st.close(clean)
			cancel()
		}
	}()
	// A rest's queries run to their end when ctx has ended.
	started, quiet := time.Now(), context.WithoutCancel(ctx)
	for i := 0; ctx.Err() == nil && time.Since(started) < s.duration; i++ {
		if err := s.load(ctx); err != nil {
			return err
		}
		taken, err := s.sample(quiet)
		if err != nil {
			return fmt.Errorf("sampling: %w", err)
		}
		taken.at = time.Since(started)
		s.samples = append(s.samples, taken)
		fmt.Fprintf(s.progress, "%8v  heap %d KB, %d goroutines, %d of %d connections in use, %d locks, %d tickets, %d statements\n", taken.at.Round(time.Second),
			taken.values[heap]>>10, taken.values[goroutines], taken.values[inUse], taken.values[backends], taken.values[locks], taken.values[tickets], taken.values[statements])
		if s.warm.Len() == 0 && taken.at > s.duration/4 {
			if err := pprof.Lookup("heap").WriteTo(&s.warm, 0); err != nil {
				return err
			}
		}
		s.reopen(quiet, s.stations[i%len(s.stations)])
	}
	return errors.Join(pprof.Lookup("heap").WriteTo(&s.end, 0), pprof.Lookup("goroutine").WriteTo(&s.stacks, 1))
}

// load works for as long as it is until the next rest.
func (s *soaking) load(ctx context.Context) error {
	over, stop := context.WithTimeout(ctx, s.every)
	defer stop()
	var group sync.WaitGroup
	for _, w := range s.workers {
		group.Go(func() {
			for pause(over, rand.N(2*pace)) {
				w.step(s.tally)
			}
		})
	}
	group.Go(func() {
		for every := min(max(s.every/2, time.Second/2), 5*time.Second); pause(over, every); {
			s.terminate(context.WithoutCancel(ctx))
		}
	})
	rested := make(chan struct{})
	go func() {
		group.Wait()
		close(rested)
	}()
	<-over.Done()
	select {
	case <-rested:
		return nil
	case <-time.After(6 * patience):
		var stacks bytes.Buffer
		pprof.Lookup("goroutine").WriteTo(&stacks, 1)
		return fmt.Errorf("the load did not come to rest within %v:\n%s", 6*patience, &stacks)
	}
}

// pause returns false if ctx ends meanwhile.
func pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// terminate ends one of the load's backends.
func (s *soaking) terminate(ctx context.Context) {
	res, err := s.watch.ExecContext(ctx, `
		SELECT pg_terminate_backend(pid) FROM (
			SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND datname = current_database() ORDER BY random() LIMIT 1
		) AS one`, s.name)
	if err == nil {
		if n, _ := res.RowsAffected(); n == 0 {
			err = errors.New("the load has no backends")
		}
	}
	s.note(termination, err)
}

// reopen closes a locker, so that the next round begins with a new one.
func (s *soaking) reopen(ctx context.Context, st *station) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	s.note(reopening, errors.Join(st.close(ctx), st.ready(ctx)))
}

// settling is how long the work may take that the load has left to the
// background: a waiter that was cancelled leaves the server within half a
// second, and a session that was destroyed ends when the server notices.
const settling = 5 * time.Second

func (s *soaking) sample(ctx context.Context) (taken sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	v := &taken.values
	for began := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		if err := s.watch.QueryRowContext(ctx, `
			SELECT count(DISTINCT a.pid), count(l.pid) FILTER (WHERE l.objsubid = 1), count(l.pid) FILTER (WHERE l.objsubid = 2)
			FROM pg_stat_activity a LEFT JOIN pg_locks l ON l.pid = a.pid AND l.locktype = 'advisory'
			WHERE a.application_name = $1 AND a.datname = current_database()`, s.name).Scan(&v[backends], &v[locks], &v[tickets]); err != nil {
			return taken, err
		}
		if v[locks]+v[tickets] == 0 || time.Since(began) > settling {
			break
		}
	}
	for _, st := range s.stations {
		if st.conn != nil {
			var n int64
			if st.conn.QueryRowContext(ctx, "SELECT count(*) FROM pg_prepared_statements").Scan(&n) == nil { // else it was terminated
				v[statements] = max(v[statements], n)
			}
		}
	}
	// The rows are of no use after a soak of hours.
	res, err := s.watch.ExecContext(ctx, "DELETE FROM lock_audit")
	if err != nil {
		return taken, err
	}
	n, _ := res.RowsAffected()
	s.audited += n
	for _, db := range s.loads {
		v[inUse] += int64(db.Stats().InUse)
	}
	runtime.GC()
	time.Sleep(20 * time.Millisecond) // for the cleanups, which free more
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	v[heap], v[goroutines] = int64(m.HeapAlloc), int64(runtime.NumGoroutine())
	return taken, nil
}

// withParams adds parameters to a connection string, a URL or key=value.
func withParams(dsn string, params ...string) string {
	if u, err := url.Parse(dsn); err == nil && strings.HasPrefix(u.Scheme, "postgres") {
		q := u.Query()
		for i := 0; i < len(params); i += 2 {
			q.Set(params[i], params[i+1])
		}
		u.RawQuery = q.Encode()
		return u.String()
	}
	for i := 0; i < len(params); i += 2 {
		dsn += fmt.Sprintf(" %s='%s'", params[i], params[i+1])
	}
	return strings.TrimSpace(dsn)
}
