// Package verify tries to break swanlock and judges what happened. Worker
// processes take and release a few locks while faults are injected; what they
// say of it, and what the server says, is a history, which is checked against
// models of what a lock is. docs/verification.md tells what that proves.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

const (
	// longestTTL bounds the TTLs that workers ask for.
	longestTTL = 2 * shortestTTL
	// shortestTTL is the shortest of them.
	shortestTTL = 600 * time.Millisecond
	// margin is how much too long the server may show a lock whose holder is
	// gone: machines are busy, and a server looks at its connections only now
	// and then.
	margin = 4 * time.Second
	// oneWait is how long a waiter's session may wait in the server at a time.
	oneWait = time.Second
	// finishing is how long workers may take to finish. The longest call of
	// theirs is bounded by pglock's patience of five seconds, several times over.
	finishing = 45 * time.Second
	// clientsPerWorker take locks at once in a process.
	clientsPerWorker = 3
)

// A Config is what to do.
type Config struct {
	DSN           string // key=value
	MigrationsSQL string // makes lock_audit and the fence guard
	Worker        []string
	Duration      time.Duration
	Workers       int
	Faults        []string
	Seed          uint64
	Restart       func(ctx context.Context, immediate bool) error // nil: not possible
	Pause         func() (resume func(), err error)               // as is this
	Progress      io.Writer
}

// Run starts the workers, injects the faults, and judges what happened. Its
// error says that it could not do so; the report has what was found.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	rnd := rand.New(rand.NewPCG(cfg.Seed, 0))
	name := fmt.Sprintf("%08x", rand.Uint32()) // not the seed's: two runs may share a server
	hist := &History{Seed: cfg.Seed, Targets: targets(name)}
	d, err := openDatabase(ctx, cfg.DSN, name, cfg.MigrationsSQL, len(hist.Targets))
	if err != nil {
		return nil, err
	}
	defer d.db.Close()
	defer func() { err = errors.Join(err, d.drop()) }()
	var version string
	if err := d.db.QueryRowContext(ctx, "SELECT current_setting('server_version')").Scan(&version); err != nil {
		return nil, err
	}

	wcfg := workerConfig{DSN: d.dsn, Run: d.run, Clients: clientsPerWorker, Crowd: crowdSize, Seed: cfg.Seed, Targets: hist.Targets, TTL: shortestTTL,
		Cancel: slices.Contains(cfg.Faults, FaultCancel)}
	if slices.Contains(cfg.Faults, FaultRollback) {
		wcfg.Rollback = 25
		if len(cfg.Faults) == 1 {
			wcfg.Rollback = 70
		}
	}
	in := &injector{d: d, rnd: rnd, restart: cfg.Restart, pause: cfg.Pause, crash: hist.Targets[crashTarget]}
	for _, f := range cfg.Faults {
		if !byWorkers(f) {
			in.enabled = append(in.enabled, f)
		}
	}
	if slices.Contains(cfg.Faults, FaultCut) || slices.Contains(cfg.Faults, FaultSilence) {
		dial, err := d.way()
		if err != nil {
			return nil, err
		}
		if in.proxy, err = newProxy(dial); err != nil {
			return nil, err
		}
		defer in.proxy.close()
		wcfg.Via = in.proxy.addr()
	}
	rec := newRecorder()
	in.procs = &procs{argv: cfg.Worker, config: wcfg, recorder: rec}
	defer in.procs.finish(0) // if it was not done below

	octx, unwatch := context.WithCancel(context.WithoutCancel(ctx))
	defer unwatch()
	obs := &observer{d: d, targets: hist.Targets}
	var watching sync.WaitGroup
	watching.Go(func() { obs.run(octx) })
	watching.Go(func() { pulses(octx, obs.stalled) })
	defer func() { unwatch(); watching.Wait() }()

	began := time.Now()
	if err := in.procs.start(cfg.Workers); err != nil {
		return nil, err
	}
	fctx, calm := context.WithTimeout(ctx, cfg.Duration)
	defer calm()
	go progress(fctx, cfg.Progress, rec, in, cfg.Duration)
	if err := in.run(fctx); err != nil {
		return nil, err
	}
	<-fctx.Done()
	if in.proxy != nil {
		in.proxy.heal()
	}
	stuck := in.procs.finish(finishing)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	took := time.Since(began)

	// What was killed with a lock must leave it. Then there is nobody left.
	holds, kept := reckon(ctx, d, hist)
	time.Sleep(2 * every)
	unwatch()
	watching.Wait()
	hist.Holds = slices.Concat(rec.order, in.holds, holds)
	hist.Faults = append(in.faults, obs.outages...)
	hist.Seen, hist.Clocks, hist.Procs = obs.seen, obs.clocks, in.procs.all
	hist.Stalls = append(rec.stalls, obs.stalls...)
	hist.Bystanders, hist.RolledBack = in.bystood, rec.rolledBack
	if err := errors.Join(in.procs.broken, d.audit(ctx, hist), d.log(ctx, hist)); err != nil {
		return nil, err
	}
	hist.End = now()
	r := Judge(hist)
	for i := range r.Results {
		if r.Results[i].Kind == KindNobody {
			r.Results[i].Findings = append(r.Results[i].Findings, kept...)
		}
	}
	r.add(in.procs.left(stuck, hist.End))
	r.Server, r.Faults, r.Took, r.Seed, r.Workers = version, cfg.Faults, took, cfg.Seed, cfg.Workers
	return r, nil
}

const (
	// mainTargets are the first, which the clients contend for. The others are locked
	// beside one of those.
	mainTargets = 4
	// crashTarget is the one that only verify itself locks, around a crash.
	crashTarget = 6
	// semaphoreTarget and leaderTarget are for what is built on lockers.
	semaphoreTarget = 7
	leaderTarget    = 8
	// hotTarget is the first of the hotTargets, which the crowds contend for.
	hotTarget  = 9
	hotTargets = 2
)

// targets are three of each kind, crashTarget, those for what is built on lockers,
// and those of the crowds.
func targets(name string) (all []Target) {
	for i := range 3 {
		for _, shared := range []bool{false, true} {
			t := Target{Shared: shared}
			t.Name = fmt.Sprintf("swanlock-verify/%s/%s-%d", name, t.Kind(), i)
			t.Key = int64(pglock.KeyOf(t.Name))
			all = append(all, t)
		}
	}
	for _, t := range []Target{{Name: "crash"}, {Name: "semaphore", Places: 2}, {Name: "leader", Places: 1}, {Name: "hot-0"}, {Name: "hot-1"}} {
		t.Name = fmt.Sprintf("swanlock-verify/%s/%s", name, t.Name)
		t.Key = int64(pglock.KeyOf(t.Name))
		if t.Places > 1 {
			t.Parts = append(t.Parts, int64(pglock.KeyOf(t.Name+"/line")))
			for i := range t.Places {
				t.Parts = append(t.Parts, int64(pglock.KeyOf(fmt.Sprintf("%s/place-%d", t.Name, i))))
			}
		}
		all = append(all, t)
	}
	return all
}

// way is how the proxy gets to the server.
func (d *database) way() (func(context.Context) (net.Conn, error), error) {
	if d.hosts > 1 {
		return nil, fmt.Errorf("each of the faults %s and %s needs a connection string with one host, not %d: leave them out of --faults, or name one host", FaultCut, FaultSilence, d.hosts)
	}
	if len(d.host) > 0 && d.host[0] == '/' {
		return nil, fmt.Errorf("each of the faults %s and %s needs TCP, not the socket in %s: leave them out of --faults, or name the host", FaultCut, FaultSilence, d.host)
	}
	address := net.JoinHostPort(d.host, strconv.Itoa(int(d.port)))
	return func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", address)
	}, nil
}

// reckon takes each lock for the last time, over a connection without faults.
// It closes what the audit has open, and shows that nothing keeps the lock.
func reckon(ctx context.Context, d *database, hist *History) (holds []*Hold, found []Finding) {
	for i, target := range hist.Targets {
		h := ownHold(fmt.Sprintf("main-%d", i), i, true)
		actx, cancel := context.WithTimeout(ctx, longestTTL+margin)
		err := d.session(actx, func(s *pglock.Session) error { return once(actx, s, h, target) }, pglock.WithAudit())
		cancel()
		holds = append(holds, h)
		if err != nil {
			found = append(found, Finding{Kind: KindNobody, Target: target.Name, At: now(),
				Text: fmt.Sprintf("all workers have ended, but the lock cannot be had within %v: %v", longestTTL+margin, err)})
		}
	}
	return holds, found
}

// once takes and frees a lock, and notes the outcome in h.
func once(ctx context.Context, s swanlock.Locker, h *Hold, target Target) error {
	h.Acquire.Call = now()
	lock, err := s.Acquire(ctx, target.Name, swanlock.WithFence(), swanlock.WithOwner(h.ID))
	h.Acquire.Return, h.Outcome = now(), OK
	if err != nil {
		h.Outcome, h.Err = Failed, err.Error()
		return err
	}
	h.Fence = int64(lock.Info().Fence)
	h.Release.Call = now()
	err = lock.Release(ctx)
	h.Release.Return, h.Released = now(), OK
	if err != nil {
		h.Released, h.Err = Lost, err.Error()
	}
	return err
}

// session runs f with a session of verify's own.
func (d *database) session(ctx context.Context, f func(*pglock.Session) error, opts ...pglock.SessionOption) error {
	conn, err := d.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	s := pglock.NewSession(conn, append(opts, pglock.WithLogger(nil))...)
	defer s.Close(context.WithoutCancel(ctx))
	return f(s)
}

// ownHold returns a hold of verify's own.
func ownHold(id string, target int, audited bool) *Hold {
	return &Hold{ID: id, Proc: "main", Label: "main", Locker: "Session, pgx", Target: target, Wait: true, Fenced: true, Audited: audited}
}

// progress writes now and then how far the run is.
func progress(ctx context.Context, w io.Writer, rec *recorder, in *injector, of time.Duration) {
	if w == nil {
		return
	}
	began := time.Now()
	ticker := time.NewTicker(max(of/10, time.Second).Round(time.Second))
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			c := rec.progress()
			in.mu.Lock()
			faults := len(in.faults)
			in.mu.Unlock()
			fmt.Fprintf(w, "  %4.0f s of %v: %d locks granted (%d shared), %d lost, %d writes (%d fenced off), %d faults\n",
				time.Since(began).Seconds(), of, c.Granted, c.Shared, c.Lost, c.Writes, c.Fenced, faults)
		case <-ctx.Done():
			return
		}
	}
}
