package election_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/election"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/mocks"
)

var bg = context.Background()

// leads waits for the end of its term.
func leads(ctx context.Context) error { <-ctx.Done(); return nil }

func named(name string) election.Option {
	return election.WithLockOptions(swanlock.WithOwner(name))
}

// TestOneLeads, and when its context ends, the next one leads at once; when the
// lock is lost, another leads as soon as the TTL or the server lets it.
func TestOneLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		var mu sync.Mutex
		var log []string
		var wg sync.WaitGroup
		began := time.Now()
		var stops []context.CancelFunc
		for _, name := range []string{"a", "b", "c"} {
			ctx, stop := context.WithCancel(bg)
			stops = append(stops, stop)
			wg.Go(func() {
				err := election.Run(ctx, l, "t", func(ctx context.Context) error {
					mu.Lock()
					log = append(log, fmt.Sprintf("%v %s", time.Since(began), name))
					mu.Unlock()
					return leads(ctx)
				}, named(name))
				if !errors.Is(err, context.Canceled) {
					t.Errorf("Run: %v", err)
				}
			})
			synctest.Wait()
		}
		time.Sleep(time.Minute)
		stops[0]()
		time.Sleep(time.Minute)
		l.Lose("t", nil)
		time.Sleep(time.Minute)
		stops[2]()
		time.Sleep(time.Minute)
		stops[1]()
		wg.Wait()
		if got, want := fmt.Sprint(log), "[0s a 1m0s b 2m0s c 3m0s b]"; got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		held, err := l.TryAcquire(bg, "t")
		if err != nil {
			t.Fatal(err)
		}
		held.Release(bg)
	})
}

// TestNeverTwo lead at once, whatever happens: losses, errors, processes that come
// and go. When a term begins, the lock of the one before is over.
func TestNeverTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		ctx, stop := context.WithTimeout(bg, time.Hour)
		defer stop()
		var mu sync.Mutex
		var last swanlock.DistributedLock
		terms, losses := 0, 0
		var wg sync.WaitGroup
		for i := range 5 {
			wg.Go(func() {
				for ctx.Err() == nil {
					life, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(600))*time.Second)
					election.Run(life, l, "t", func(ctx context.Context) error {
						held, _ := election.Lock(ctx)
						mu.Lock()
						if last != nil && last.Err() == nil && held.Err() == nil {
							t.Errorf("process %d begins while another leads", i)
						}
						if held.Err() == nil { // It may have been lost before this was called.
							last = held
						}
						terms++
						mu.Unlock()
						over := time.NewTimer(time.Duration(rand.IntN(60)) * time.Second)
						defer over.Stop()
						select {
						case <-ctx.Done():
							return nil
						case <-over.C:
							return []error{nil, errors.New("a bad day")}[rand.IntN(2)]
						}
					})
					cancel()
				}
			})
		}
		wg.Go(func() {
			for ctx.Err() == nil {
				time.Sleep(time.Duration(rand.IntN(60)) * time.Second)
				if l.Lose("t", nil) {
					losses++
				}
			}
		})
		wg.Wait()
		if terms < 50 || losses < 10 {
			t.Errorf("%d terms and %d losses in an hour", terms, losses)
		}
	})
}

// TestErrors: Run waits longer and longer while the locker fails, and leads when
// it works again; an error of the function that leads lets another lead.
func TestErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		var tries []time.Duration
		began := time.Now()
		failing := &mocks.Locker{AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			tries = append(tries, time.Since(began))
			if len(tries) < 12 {
				return nil, errors.New("the server is away")
			}
			return l.Acquire(ctx, target, opts...)
		}}
		var told []error
		err := election.Run(bg, failing, "t", func(ctx context.Context) error {
			held, ok := election.Lock(ctx)
			if !ok || held.Info().Fence == 0 || held.Info().TTL != 15*time.Second {
				t.Errorf("Lock: %v", held)
			}
			return election.ErrResign
		}, election.OnError(func(err error) { told = append(told, err) }), election.WithLockOptions(swanlock.WithFence()),
			election.WithBackoff(time.Second, time.Minute))
		if err != nil || len(told) != 11 {
			t.Errorf("Run: %v, after %d errors", err, len(told))
		}
		for i := 1; i < len(tries); i++ {
			d, most := tries[i]-tries[i-1], min(time.Second<<(i-1), time.Minute)
			if d < most/2 || d > most {
				t.Errorf("wait %d took %v, want %v to %v", i, d, most/2, most)
			}
		}

		other := make(chan struct{})
		ctx, cancel := context.WithCancel(bg)
		defer cancel()
		go election.Run(ctx, l, "t", func(context.Context) error {
			go election.Run(ctx, l, "t", func(ctx context.Context) error { close(other); return leads(ctx) })
			return errors.New("a bad day")
		})
		<-other
		cancel()
		synctest.Wait()
	})
}

// TestReleaseFails: if the lock is still held when Run ends, because nothing could be
// sent, OnError is told, and the error of Run says so.
func TestReleaseFails(t *testing.T) {
	busy := errors.New("busy")
	held := &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { return busy }, ErrFunc: func() error { return nil }}
	l := &mocks.Locker{AcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return held, nil }}
	for _, resigns := range []bool{true, false} {
		ctx, cancel := context.WithCancel(bg)
		var told []error
		err := election.Run(ctx, l, "t", func(context.Context) error {
			if resigns {
				return election.ErrResign
			}
			cancel()
			return errors.New("cut short")
		}, election.OnError(func(err error) { told = append(told, err) }))
		cancel()
		if !errors.Is(err, busy) || errors.Is(err, context.Canceled) == resigns {
			t.Errorf("resigns: %t: Run: %v", resigns, err)
		}
		if len(told) != 1 || !errors.Is(told[0], busy) {
			t.Errorf("resigns: %t: told %v, want %v", resigns, told, busy)
		}
	}
}

// TestLostRelease: a loss that only the release finds is told, and the lock is free.
func TestLostRelease(t *testing.T) {
	held := &mocks.DistributedLock{ReleaseFunc: func(context.Context) error { return swanlock.ErrLost }}
	l := &mocks.Locker{AcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) { return held, nil }}
	var told []error
	err := election.Run(bg, l, "t", func(context.Context) error { return election.ErrResign },
		election.OnError(func(err error) { told = append(told, err) }))
	if err != nil || len(told) != 1 || told[0] != swanlock.ErrLost {
		t.Errorf("Run: %v, told %v", err, told)
	}
}

// TestLongBackoff: the wait stays between half of the longest and the longest,
// however many failures there were.
func TestLongBackoff(t *testing.T) {
	const longest = 10 * time.Hour
	for _, first := range []time.Duration{1, 20 * time.Second, longest} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(bg)
			var waits []time.Duration
			last := time.Now()
			failing := &mocks.Locker{AcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
				waits = append(waits, time.Since(last))
				last = time.Now()
				if len(waits) > 200 {
					cancel()
				}
				return nil, errors.New("the server is away")
			}}
			if err := election.Run(ctx, failing, "t", leads, election.WithBackoff(first, longest)); err != context.Canceled {
				t.Errorf("Run: %v", err)
			}
			for i, d := range waits[50:] {
				if d < longest/2 || d > longest {
					t.Fatalf("from %v: wait %d took %v, want %v to %v", first, 50+i, d, longest/2, longest)
				}
			}
		})
	}
}

// TestLeader: who campaigns and who only watches know who leads, and are told of
// each change once.
func TestLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		var mu sync.Mutex
		holder := ""
		look := election.LookUp(time.Second, func(context.Context, string) (string, error) {
			mu.Lock()
			defer mu.Unlock()
			if holder == "?" {
				return "", errors.New("the server is away")
			}
			return holder, nil
		})
		is := func(name string) { mu.Lock(); holder = name; mu.Unlock(); time.Sleep(2 * time.Second) }
		ctx, stop := context.WithCancel(bg)
		var seen []string
		watcher := election.New(l, "t", look, election.OnLeader(func(owner string) { seen = append(seen, owner) }))
		go watcher.Watch(ctx)
		busy, err := l.TryAcquire(bg, "t")
		if err != nil {
			t.Fatal(err)
		}
		var log []string
		candidate := election.New(l, "t", look, named("me"), election.OnStart(func(held swanlock.DistributedLock) { log = append(log, "start "+held.Info().Owner) }),
			election.OnStop(func() { log = append(log, "stop") }))
		ended := make(chan error, 1)
		go func() { ended <- candidate.Run(ctx, leads) }()
		is("other")
		if watcher.Leader() != "other" || candidate.Leader() != "other" || <-candidate.Changes() != "other" {
			t.Errorf("leader: %q and %q, want other", watcher.Leader(), candidate.Leader())
		}
		is("?")
		if watcher.Leader() != "other" {
			t.Errorf("after an error: %q", watcher.Leader())
		}
		busy.Release(bg)
		synctest.Wait()
		if candidate.Leader() != "me" || <-candidate.Changes() != "me" {
			t.Errorf("leader: %q, want me", candidate.Leader())
		}
		is("") // by an old look
		if candidate.Leader() != "me" {
			t.Errorf("while it leads: %q", candidate.Leader())
		}
		is("me")
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		synctest.Wait()
		if got := fmt.Sprint(log); got != "[start me stop]" {
			t.Errorf("callbacks: %s", got)
		}
		if got := fmt.Sprintf("%q", seen); got != `["other" "" "me"]` {
			t.Errorf("the watcher saw %s", got)
		}
	})
}

func TestBadInput(t *testing.T) {
	l := memlock.New()
	never := func(context.Context) error { t.Error("it leads"); return nil }
	for name, err := range map[string]error{
		"no locker":       election.Run(bg, nil, "t", never),
		"no target":       election.Run(bg, l, "", never),
		"a negative TTL":  election.Run(bg, l, "t", never, election.WithLockOptions(swanlock.WithTTL(-1))),
		"backoff of zero": election.Run(bg, l, "t", never, election.WithBackoff(0, 0)),
		"no LookUp":       election.New(l, "t").Watch(bg),
		"LookUp always":   election.New(l, "t", election.LookUp(0, func(context.Context, string) (string, error) { return "", nil })).Watch(bg),
		"an option that the locker does not know": election.Run(bg, &mocks.Locker{AcquireFunc: func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
			return nil, errors.ErrUnsupported
		}}, "t", never),
	} {
		if err == nil || errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestNilCallbacks do nothing.
func TestNilCallbacks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space, fails := memlock.New(), 1
		l := &mocks.Locker{AcquireFunc: func(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
			if fails--; fails == 0 {
				return nil, nil // neither a lock nor an error: a failure, too
			}
			return space.Acquire(ctx, target, opts...)
		}}
		err := election.Run(bg, l, "t", func(context.Context) error { return election.ErrResign }, nil,
			election.OnError(nil), election.OnStart(nil), election.OnStop(nil), election.OnLeader(nil), election.LookUp(0, nil))
		if err != nil || fails != -1 {
			t.Errorf("Run: %v, after %d acquires", err, 1-fails)
		}
	})
}

// TestUnsupportedByTheLeader: only the locker's own refusal of an option ends Run.
func TestUnsupportedByTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		terms := 0
		err := election.Run(bg, memlock.New(), "t", func(context.Context) error {
			if terms++; terms < 3 {
				return errors.ErrUnsupported
			}
			return election.ErrResign
		})
		if err != nil || terms != 3 {
			t.Errorf("Run: %v, after %d terms", err, terms)
		}
	})
}

// TestStaleLook: what was asked before this process stepped down says nothing of the
// time after it.
func TestStaleLook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := memlock.New()
		var seen []string
		looks := 0
		e := election.New(l, "t", named("me"), election.OnLeader(func(owner string) { seen = append(seen, owner) }),
			election.LookUp(500*time.Millisecond, func(context.Context, string) (string, error) {
				if looks++; looks == 2 {
					time.Sleep(2 * time.Second) // it is asked while this process leads
				}
				return "me", nil
			}))
		err := e.Run(bg, func(ctx context.Context) error {
			time.Sleep(time.Second)
			return election.ErrResign
		})
		if err != nil || looks != 2 {
			t.Errorf("Run: %v, after %d looks", err, looks)
		}
		if got := fmt.Sprintf("%q", seen); got != `["me" ""]` || e.Leader() != "" {
			t.Errorf("it saw %s", got)
		}
	})
}
