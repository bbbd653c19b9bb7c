package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
)

// A scriptedLock does as the test says.
type scriptedLock struct {
	swanlock.DistributedLock
	info    swanlock.Info
	refresh func() error
	done    chan struct{}
	lose    func(error)
	err     error

	mu    sync.Mutex
	start time.Time // of the TTL
}

func newScriptedLock(ttl time.Duration) *scriptedLock {
	l := &scriptedLock{info: swanlock.Info{Target: "t", TTL: ttl, AcquiredAt: time.Now()}, start: time.Now(), refresh: func() error { return nil }, done: make(chan struct{})}
	var once sync.Once
	l.lose = func(err error) { once.Do(func() { l.err = err; close(l.done) }) }
	return l
}

func (l *scriptedLock) Info() swanlock.Info   { return l.info }
func (l *scriptedLock) Done() <-chan struct{} { return l.done }
func (l *scriptedLock) Err() error            { return l.err }

func (l *scriptedLock) Refresh(context.Context) error {
	sent := time.Now()
	err := l.refresh()
	if err == nil {
		l.mu.Lock()
		l.start = sent
		l.mu.Unlock()
	}
	return err
}

func (l *scriptedLock) restart() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.start = time.Now()
}

func (l *scriptedLock) Deadline() (time.Time, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.start.Add(l.info.TTL), l.info.TTL > 0
}

// A scriptedProcess notes what is done to it, and when.
type scriptedProcess struct {
	began time.Time
	onDo  func(what string) // may end it

	mu   sync.Mutex
	log  []string
	gone chan struct{}
	end  func()
}

func newScriptedProcess() *scriptedProcess {
	p := &scriptedProcess{began: time.Now(), gone: make(chan struct{})}
	p.end = sync.OnceFunc(func() { close(p.gone) })
	return p
}

func (p *scriptedProcess) note(what string) {
	p.mu.Lock()
	p.log = append(p.log, fmt.Sprintf("%v %s", time.Since(p.began), what))
	p.mu.Unlock()
	if p.onDo != nil {
		p.onDo(what)
	}
}

func (p *scriptedProcess) ended() <-chan struct{}    { return p.gone }
func (p *scriptedProcess) signal(sig syscall.Signal) { p.note(sig.String()) }
func (p *scriptedProcess) stop()                     { p.note("stop") }
func (p *scriptedProcess) kill()                     { p.note("kill"); p.end() }
func (p *scriptedProcess) sweep(by time.Duration)    { p.note("sweep " + by.String()) }

func TestGuard(t *testing.T) {
	lost := fmt.Errorf("%w: a test took it", swanlock.ErrLost)
	cut := errors.New("the network is cut")
	for _, tt := range []struct {
		name       string
		ttl, grace time.Duration
		script     func(*scriptedLock, *scriptedProcess, chan<- os.Signal)
		want       []string // what was done to the process
		lost       string   // in the error; "": none
		warnings   int
	}{
		{
			name: "nothing happens for a long time", ttl: 30 * time.Second, grace: 10 * time.Second,
			script: func(_ *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) { time.AfterFunc(10*time.Hour, p.end) },
		},
		{
			name: "nothing happens to a lock without a TTL", grace: 10 * time.Second,
			script: func(_ *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) { time.AfterFunc(10*time.Hour, p.end) },
		},
		{
			name: "signals are passed on", ttl: 30 * time.Second, grace: 10 * time.Second,
			script: func(_ *scriptedLock, p *scriptedProcess, c chan<- os.Signal) {
				time.AfterFunc(time.Second, func() { c <- syscall.SIGUSR1 })
				time.AfterFunc(2*time.Second, func() { c <- syscall.SIGTERM })
				time.AfterFunc(20*time.Second, p.end)
			},
			want: []string{"1s user defined signal 1", "2s terminated"},
		},
		{
			name: "a loss stops it, then kills it", ttl: 60 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, _ *scriptedProcess, _ chan<- os.Signal) {
				time.AfterFunc(5*time.Second, func() { l.lose(lost) })
			},
			want: []string{"5s stop", "15s kill", "15s sweep 0s"}, lost: "a test took it",
		},
		{
			name: "a loss stops it and it ends", ttl: 60 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				time.AfterFunc(5*time.Second, func() { l.lose(lost) })
				p.onDo = func(what string) {
					if what == "stop" {
						time.AfterFunc(3*time.Second, p.end)
					}
				}
			},
			want: []string{"5s stop", "8s sweep 7s"}, lost: "a test took it",
		},
		{
			name: "no grace kills at once", ttl: 60 * time.Second,
			script: func(l *scriptedLock, _ *scriptedProcess, _ chan<- os.Signal) {
				time.AfterFunc(5*time.Second, func() { l.lose(lost) })
			},
			want: []string{"5s kill", "5s sweep 0s"}, lost: "a test took it",
		},
		{
			name: "a refresh finds the loss", grace: time.Second,
			script: func(l *scriptedLock, _ *scriptedProcess, _ chan<- os.Signal) {
				l.refresh = func() error { l.lose(lost); return lost }
			},
			want: []string{"3s stop", "4s kill", "4s sweep 0s"}, lost: "a test took it",
		},
		{
			// Refreshed at 5x3 s for the last time, so the server keeps it until 45 s.
			name: "cut off, it is gone before the TTL ends", ttl: 30 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				l.refresh = func() error {
					if time.Since(p.began) > 17*time.Second {
						return cut
					}
					return nil
				}
			},
			want: []string{"34s stop", "44s kill", "44s sweep 0s"}, lost: "no refresh got through for 19s of its TTL of 30s", warnings: 1,
		},
		{
			name: "a refresh that hangs delays nothing", ttl: 6 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				l.refresh = func() error { <-p.gone; return cut }
			},
			want: []string{"3.4s stop", "5.4s kill", "5.4s sweep 0s"}, lost: "no refresh got through for 3.4s of its TTL of 6s",
		},
		{
			// Sent at 3 s, answered at 5 s: the TTL counts from 3 s.
			name: "a TTL counts from when its refresh was sent", ttl: 30 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				var n int
				l.refresh = func() error {
					if n++; n == 1 {
						time.Sleep(2 * time.Second)
						return nil
					}
					<-p.gone
					return cut
				}
			},
			want: []string{"22s stop", "32s kill", "32s sweep 0s"}, lost: "no refresh got through",
		},
		{
			name: "a deadline that something else moves on", ttl: 30 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				l.refresh = func() error { <-p.gone; return cut }
				for at := time.Duration(0); at < 50*time.Second; at += 10 * time.Second {
					time.AfterFunc(at, l.restart)
				}
			},
			want: []string{"59s stop", "1m9s kill", "1m9s sweep 0s"}, lost: "no refresh got through",
		},
		{
			// As when the machine slept: the lock sees it by the wall clock.
			name: "a deadline that is suddenly over", ttl: 30 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				l.refresh = func() error {
					if time.Since(p.began) > 10*time.Second {
						l.mu.Lock()
						l.start = p.began.Add(-time.Hour)
						l.mu.Unlock()
						return cut
					}
					return nil
				}
			},
			want: []string{"12s stop", "22s kill", "22s sweep 0s"}, lost: "no refresh got through", warnings: 1,
		},
		{
			name: "an outage that ends in time is only told", ttl: 30 * time.Second, grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				l.refresh = func() error {
					if at := time.Since(p.began); at > 10*time.Second && at < 22*time.Second {
						return cut
					}
					return nil
				}
				time.AfterFunc(time.Hour, p.end)
			},
			warnings: 1,
		},
		{
			name: "without a TTL an outage is only told", grace: 10 * time.Second,
			script: func(l *scriptedLock, p *scriptedProcess, _ chan<- os.Signal) {
				l.refresh = func() error { return cut }
				time.AfterFunc(time.Hour, p.end)
			},
			warnings: 1,
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				lock, proc, signals, warnings := newScriptedLock(tt.ttl), newScriptedProcess(), make(chan os.Signal), 0
				tt.script(lock, proc, signals)
				time.AfterFunc(24*time.Hour, proc.end) // a test that fails must end
				g := &guard{lock: lock, proc: proc, ttl: tt.ttl, grace: tt.grace, signals: signals, warn: func(error) { warnings++ }}
				err := g.watch(t.Context())
				if !slices.Equal(proc.log, tt.want) {
					t.Errorf("done to the process: %q\nwant: %q", proc.log, tt.want)
				}
				if tt.lost == "" && err != nil || tt.lost != "" && (err == nil || !strings.Contains(err.Error(), tt.lost)) {
					t.Errorf("watch = %v, want %q", err, tt.lost)
				}
				if warnings != tt.warnings {
					t.Errorf("%d warnings, want %d", warnings, tt.warnings)
				}
			})
		})
	}
}

func TestGuardContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 4*time.Second)
		defer cancel()
		proc := newScriptedProcess()
		proc.onDo = func(string) { proc.end() }
		g := &guard{lock: newScriptedLock(time.Minute), proc: proc, ttl: time.Minute, grace: time.Second}
		if err := g.watch(ctx); err != nil || !slices.Equal(proc.log, []string{"4s terminated"}) {
			t.Errorf("watch = %v, %q", err, proc.log)
		}
	})
}

// A lock that has ended before the command could be started is told, and not waited
// for.
func TestGuardRenewsInVain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lost, lock := fmt.Errorf("%w: a test took it", swanlock.ErrLost), newScriptedLock(6*time.Second)
		lock.refresh = func() error { lock.lose(lost); return lost }
		g := &guard{lock: lock, ttl: 6 * time.Second}
		time.Sleep(3 * time.Second)
		if err := g.renew(); err != lost {
			t.Errorf("renew = %v, want %v", err, lost)
		}
	})
}

// A command that takes long to start has the whole TTL all the same.
func TestGuardRenews(t *testing.T) {
	for started, want := range map[time.Duration]string{
		100 * time.Millisecond: "3.4s stop", // counted from the acquire
		3 * time.Second:        "6.4s stop", // and from the start
	} {
		synctest.Test(t, func(t *testing.T) {
			proc, lock := newScriptedProcess(), newScriptedLock(6*time.Second)
			proc.onDo = func(string) { proc.end() }
			g := &guard{lock: lock, proc: proc, ttl: 6 * time.Second, grace: 10 * time.Second}
			time.Sleep(started)
			if err := g.renew(); err != nil {
				t.Errorf("started after %v: renew = %v", started, err)
			}
			lock.refresh = func() error { return errors.New("the network is cut") }
			g.warn = func(error) {}
			if err := g.watch(t.Context()); err == nil || len(proc.log) == 0 || proc.log[0] != want {
				t.Errorf("started after %v: watch = %v, %q, want %q", started, err, proc.log, want)
			}
		})
	}
}
