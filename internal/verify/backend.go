package verify

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A Backend is a locker that is none of PostgreSQL's. RunBackend puts it to what
// Run puts ours to, as far as that needs no PostgreSQL: worker processes, faults of
// theirs and of the backend's server, and a judge of what they saw.
type Backend struct {
	Name   string
	Shared bool
	// Unordered says why waiters are served in no order; empty if they are.
	Unordered string
	// TTL is the shortest of the locks; the longest is twice that. 0: 600 ms.
	TTL time.Duration
	// MostFree bounds for how long a lock may be free while it is waited for: a
	// dead waiter's place, and a server that grants nothing after a restart. 0: as
	// on PostgreSQL.
	MostFree time.Duration

	Worker  []string // starts a worker process, which calls BackendWorker
	Workers int
	Clients int    // of each; 0: 3
	Open    string // what the worker is to open; not empty
	// Faults are done to the server, one at a time. Each returns when all is well
	// again.
	Faults map[string]func(ctx context.Context)
	// Final opens a locker that no fault reaches, for the end; nil: only the workers
	// can.
	Final func(ctx context.Context) (swanlock.Locker, error)
}

// RunBackend starts the workers, injects the faults, and judges what happened.
// faults are of FaultKill, FaultStop, FaultCancel and those of b.
func RunBackend(ctx context.Context, b Backend, faults []string, duration time.Duration, seed uint64) (*Report, error) {
	rnd := rand.New(rand.NewPCG(seed, 0))
	hist := &History{Seed: seed, Backend: b.Name, Unordered: b.Unordered, MostFree: b.MostFree}
	for _, t := range targets(fmt.Sprintf("%08x", rand.Uint32()))[:crashTarget] {
		t.Shared = t.Shared && b.Shared
		hist.Targets = append(hist.Targets, t)
	}
	reg, err := newRegisters()
	if err != nil {
		return nil, err
	}
	defer reg.close()
	rec := newRecorder()
	outlast := 25
	if b.TTL > 0 {
		outlast = 10 // With longer TTLs, all others would wait most of the time.
	}
	in := &injector{rnd: rnd, server: b.Faults, between: 2 * time.Second, procs: &procs{argv: b.Worker, recorder: rec, config: workerConfig{
		Clients: cmp.Or(b.Clients, clientsPerWorker), Seed: seed, Targets: hist.Targets, TTL: cmp.Or(b.TTL, shortestTTL),
		Backend: b.Open, Long: 30, Outlast: outlast, Via: reg.addr(),
		Cancel: slices.Contains(faults, FaultCancel)}}}
	for _, f := range faults {
		if !byWorkers(f) {
			in.enabled = append(in.enabled, f)
		}
	}
	defer in.procs.finish(0) // if it was not done below
	began := time.Now()
	if err := in.procs.start(b.Workers); err != nil {
		return nil, err
	}
	fctx, calm := context.WithTimeout(ctx, duration)
	defer calm()
	if err := in.run(fctx); err != nil {
		return nil, err
	}
	<-fctx.Done()
	stuck := in.procs.finish(finishing)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	took := time.Since(began)
	var final []*Hold
	var kept []Finding
	if b.Final != nil {
		final, kept = b.last(ctx, hist)
	}
	hist.Holds = slices.Concat(rec.order, final)
	hist.Faults, hist.Procs, hist.Stalls = in.faults, in.procs.all, rec.stalls
	if in.procs.broken != nil {
		return nil, in.procs.broken
	}
	hist.Log = reg.log()
	hist.End = now()
	r := Judge(hist)
	r.add(in.procs.left(stuck, hist.End, kept...))
	r.Faults, r.Took, r.Seed, r.Workers = faults, took, seed, b.Workers
	return r, nil
}

// onServer begins a fault of a Backend's server, unless one is under way.
func (in *injector) onServer(ctx context.Context, kind string) bool {
	if in.slow.Swap(true) {
		return false
	}
	in.group.Go(func() {
		defer in.slow.Store(false)
		f := Fault{Kind: kind, Span: Span{Call: now()}}
		in.server[kind](ctx)
		f.Return = now()
		in.done(f)
	})
	return true
}

// last takes each lock for the last time.
func (b Backend) last(ctx context.Context, hist *History) (holds []*Hold, found []Finding) {
	within := max(b.MostFree, longestTTL+margin)
	for i, target := range hist.Targets {
		h := &Hold{ID: fmt.Sprintf("main-%d", i), Proc: "main", Label: "main", Locker: b.Name, Target: i, Wait: true, Fenced: true}
		actx, cancel := context.WithTimeout(ctx, within)
		l, err := b.Final(actx)
		if err == nil {
			err = once(actx, l, h, target)
		}
		cancel()
		holds = append(holds, h)
		if err != nil {
			found = append(found, Finding{Kind: KindStuck, Target: target.Name, At: now(),
				Text: fmt.Sprintf("all workers have ended, but the lock cannot be had within %v: %v", within, err)})
		}
	}
	return holds, found
}

// BackendWorker is a worker process of RunBackend. It opens its lockers with open,
// which is given Backend.Open: one for all its clients, and others for one each.
func BackendWorker(ctx context.Context, in io.Reader, out io.Writer, open func(ctx context.Context, what string) (l swanlock.Locker, closeLocker func(), err error)) error {
	return work(ctx, in, out, func(cfg workerConfig, j *journal) (*worker, error) {
		conn, err := net.Dial("tcp", cfg.Via)
		if err != nil {
			return nil, err
		}
		s := &backendSite{what: cfg.Backend, opens: open, conn: conn, answers: bufio.NewReader(conn)}
		return &worker{cfg: cfg, journal: j, site: s, lockers: make(map[string]*opened),
			kinds: []lockerKind{{name: "one for all", shared: true}, {name: "its own"}}}, nil
	})
}

type backendSite struct {
	what  string
	opens func(ctx context.Context, what string) (swanlock.Locker, func(), error)

	mu      sync.Mutex // held during a write
	conn    net.Conn
	answers *bufio.Reader
}

func (s *backendSite) open(ctx context.Context, _ lockerKind, _ string) (*opened, error) {
	l, closeLocker, err := s.opens(ctx, s.what)
	if err != nil {
		return nil, err
	}
	return &opened{Locker: l, close: func(context.Context) error { closeLocker(); return nil }}, nil
}

func (s *backendSite) close() { s.conn.Close() }

func (s *backendSite) write(_ context.Context, w registerWrite) (met string, outcome Outcome, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := json.NewEncoder(s.conn).Encode(w); err != nil {
		return "", Failed, err
	}
	line, err := s.answers.ReadBytes('\n')
	if err != nil {
		return "", Failed, err
	}
	var a registerAnswer
	if err := json.Unmarshal(line, &a); err != nil {
		return "", Failed, err
	}
	if !a.OK {
		return a.Met, Refused, nil
	}
	return a.Met, OK, nil
}

// registers are what the locks of a Backend guard: those of register.go, in the
// process that judges.
type registers struct {
	listener net.Listener
	group    sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
	all   map[int]registerState
	met   map[string]string
}

type registerAnswer struct {
	OK  bool
	Met string
}

func newRegisters() (*registers, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	r := &registers{listener: l, all: make(map[int]registerState), met: make(map[string]string)}
	r.group.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			r.mu.Lock()
			r.conns = append(r.conns, conn)
			r.mu.Unlock()
			r.group.Go(func() { r.serve(conn) })
		}
	})
	return r, nil
}

func (r *registers) addr() string { return r.listener.Addr().String() }

func (r *registers) serve(conn net.Conn) {
	defer conn.Close()
	requests, answers := json.NewDecoder(conn), json.NewEncoder(conn)
	for {
		var w registerWrite
		if requests.Decode(&w) != nil || answers.Encode(r.write(w)) != nil {
			return
		}
	}
}

func (r *registers) write(w registerWrite) registerAnswer {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.all[w.Target]
	if w.Fence < s.fence {
		return registerAnswer{}
	}
	met := s.value
	s.fence = w.Fence
	if !w.Claim {
		s.value = w.ID
	}
	r.all[w.Target], r.met[w.ID] = s, met
	return registerAnswer{true, met}
}

func (r *registers) log() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.met
}

func (r *registers) close() error {
	err := r.listener.Close()
	r.mu.Lock()
	for _, c := range r.conns {
		err = errors.Join(err, c.Close())
	}
	r.mu.Unlock()
	r.group.Wait()
	return err
}
