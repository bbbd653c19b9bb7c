package verify

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// A workerConfig is what a worker process is told, in the first line of its
// standard input: it holds a password, so it is neither an argument nor in the
// environment. The end of the input asks the worker to finish.
type workerConfig struct {
	DSN     string // key=value, with the search_path
	Via     string // where the locks' connections go; "": to the server itself
	Run     string // begins every application_name
	Name    string // of this process
	Slot    int    // the process has this number among those that run
	Clients int
	Crowd   int // callers that come together: see crowd
	Seed    uint64
	Targets []Target
	Cancel  bool // contexts are cancelled at random

	TTL     time.Duration // the shortest; the longest is twice that
	Backend string        // what BackendWorker is to open; "": PostgreSQL is verified
	Long    int           // percentage of locks that are held for long; 0: 4
	Outlast int           // percentage of the others that are held for longer than their TTL, or for seconds without one; 0: 7, and none

	Rollback int // percentage of locks around which there is a transaction, most of them rolled back
}

// Worker is a worker process: it takes and releases locks, does work that they
// guard, and writes what happens to out.
func Worker(ctx context.Context, in io.Reader, out io.Writer) error {
	return work(ctx, in, out, newPostgresWorker)
}

// work is a worker process that makes its worker of what it is told.
func work(ctx context.Context, in io.Reader, out io.Writer, newWorker func(workerConfig, *journal) (*worker, error)) error {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // losses are expected here
	lines := bufio.NewReader(in)
	first, err := lines.ReadBytes('\n')
	if err != nil {
		return fmt.Errorf("a worker of swanlock verify wants its configuration on standard input: %w", err)
	}
	var cfg workerConfig
	if err := json.Unmarshal(first, &cfg); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		io.Copy(io.Discard, lines)
		cancel()
	}()

	w, err := newWorker(cfg, &journal{w: out})
	if err != nil {
		return err
	}
	defer w.site.close()
	var group sync.WaitGroup
	errs := make([]error, cfg.Clients+1)
	for i := range cfg.Clients {
		group.Go(func() {
			errs[i] = w.client(i).run(ctx)
			cancel()
		})
	}
	if cfg.Crowd > 0 {
		group.Go(func() {
			errs[cfg.Clients] = w.crowd(ctx)
			cancel()
		})
	}
	go pulses(ctx, func(s Span) { w.journal.put(event{What: evStall, Hold: cfg.Name, Call: s.Call, At: s.Return}) })
	group.Wait()
	for _, l := range w.lockers {
		l.close(context.Background())
	}
	return errors.Join(errs...)
}

// client returns the client of the process with that number.
func (w *worker) client(i int) *client {
	n := w.cfg.Slot*(w.cfg.Clients+w.cfg.Crowd) + i
	return &client{worker: w, number: n, rnd: rand.New(rand.NewPCG(w.cfg.Seed, uint64(n)))}
}

// registerName is the application_name of the connections that write to the
// register, after the run's.
const registerName = "register"

// A site is where a worker's locks are, and the register that they guard.
type site interface {
	open(ctx context.Context, kind lockerKind, label string) (*opened, error)
	write(ctx context.Context, w registerWrite) (met string, outcome Outcome, err error)
	close()
}

// A registerWrite is a write or, with Claim, a claim of a target's register.
type registerWrite struct {
	Target int
	Fence  int64
	ID     string
	Claim  bool
}

type worker struct {
	cfg     workerConfig
	journal *journal
	site    site
	kinds   []lockerKind

	mu      sync.Mutex
	holds   int
	lockers map[string]*opened // those that the clients share
}

func newPostgresWorker(cfg workerConfig, j *journal) (*worker, error) {
	register, err := openDB("pgx", cfg.DSN, "", cfg.Run+registerName)
	if err != nil {
		return nil, err
	}
	return &worker{cfg: cfg, journal: j, site: &postgres{cfg, register}, kinds: lockerKinds, lockers: make(map[string]*opened)}, nil
}

// next numbers the attempts of a process.
func (w *worker) next() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.holds++
	return fmt.Sprintf("%s-%d", w.cfg.Name, w.holds)
}

// locker opens a locker of a kind, or finds the one that is shared. label is
// the application_name of its sessions.
func (w *worker) locker(ctx context.Context, kind lockerKind, label string) (_ *opened, err error) {
	if !kind.shared {
		return w.site.open(ctx, kind, label)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	l := w.lockers[kind.name]
	if l == nil {
		if l, err = w.site.open(ctx, kind, label); err == nil {
			w.lockers[kind.name] = l
		}
	}
	return l, err
}
