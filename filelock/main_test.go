//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
)

const (
	patience = 30 * time.Second // for what should come at once
	actor    = "FILELOCK_ACTOR" // makes the test binary a process that locks
)

func TestMain(m *testing.M) {
	if kind := os.Getenv(actor); kind != "" {
		act(kind, os.Args[1:])
		os.Exit(0)
	}
	flag.Set("test.parallel", "8") // most tests wait for a TTL; the command line may say otherwise
	goleak.VerifyTestMain(m)
}

// A process is another process, which does what it is told, one line a command.
type process struct {
	*exec.Cmd
	t       *testing.T
	in      io.WriteCloser
	answers chan string
}

func start(t *testing.T, kind string, args ...string) *process {
	t.Helper()
	return startWith(t, kind, func(*exec.Cmd) {}, args...)
}

// startWith is start, with a change of how the process is started.
func startWith(t *testing.T, kind string, change func(*exec.Cmd), args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(os.Args[0], args...), t: t, answers: make(chan string, 100)}
	p.Env = append(os.Environ(), actor+"="+kind, "GORACE=atexit_sleep_ms=0")
	p.Stderr = os.Stderr
	change(p.Cmd)
	var err error
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.answers)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			p.answers <- lines.Text()
		}
	}()
	t.Cleanup(func() {
		_ = p.Process.Signal(syscall.SIGKILL)
		<-read
		_ = p.Wait()
	})
	return p
}

// send tells the process what to do; answer waits for what it says to that.
func (p *process) send(command string) {
	p.t.Helper()
	if _, err := fmt.Fprintln(p.in, command); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) answer() string {
	p.t.Helper()
	select {
	case a := <-p.answers:
		return a
	case <-time.After(2 * patience):
		p.t.Fatal("a process does not answer")
		return ""
	}
}

func (p *process) do(command string) string {
	p.t.Helper()
	p.send(command)
	return p.answer()
}

func (p *process) must(command string) {
	p.t.Helper()
	if got := p.do(command); got != "ok" {
		p.t.Fatalf("%s: got %q, want ok", command, got)
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// act is what the process of a test does: "old" and "ours" lock args[0] as they
// are told, "storm" does it by itself, "probe" probes it.
func act(kind string, args []string) {
	if kind == "storm" {
		storm(args)
		return
	}
	if kind == "probe" {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		r, err := filelock.Probe(ctx, args[0])
		fmt.Printf("%d peers %v %v\n", len(r.Peers), r.Peers, err)
		return
	}
	var l swanlock.Locker
	var opts []swanlock.Option
	if kind == "old" {
		l = oldLocker{}
	} else {
		l = filelock.New(filelock.WithStaleAfter(ttlOf(args[1])))
	}
	var held swanlock.DistributedLock
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		var err error
		switch verb {
		case "ttl":
			opts = append(opts, swanlock.WithTTL(ttlOf(arg)))
		case "auto":
			opts = append(opts, swanlock.WithAutoRefresh())
		case "shared":
			opts = append(opts, swanlock.WithShared())
		case "try":
			held, err = l.TryAcquire(context.Background(), args[0], opts...)
		case "acquire":
			held, err = l.Acquire(context.Background(), args[0], opts...)
		case "refresh":
			err = held.Refresh(context.Background())
		case "release":
			err = held.Release(context.Background())
		case "err":
			err = held.Err()
		case "child": // that keeps the lock alive, or one that does not
			c := exec.Command("sleep", "60")
			c.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			if arg == "keeps" {
				f, err := held.(*filelock.Lock).File()
				if err != nil {
					panic(err)
				}
				c.ExtraFiles = []*os.File{f}
			}
			if err = c.Start(); err == nil {
				fmt.Println(c.Process.Pid)
				continue
			}
		}
		switch {
		case err == nil:
			fmt.Println("ok")
		case errors.Is(err, swanlock.ErrLost):
			fmt.Println("lost")
		case errors.Is(err, swanlock.ErrNotAcquired):
			fmt.Println("held")
		default:
			fmt.Println(err)
		}
	}
}

func ttlOf(s string) time.Duration {
	d, err := time.ParseDuration(s)
	if err != nil {
		panic(err)
	}
	return d
}

// storm takes and frees the lock of args[0] for the time args[3], under the TTL
// args[2], as args[1] says: old, write or read. A writer adds 1 to the number in
// the file args[4], which it keeps under flock meanwhile, and appends its fence to
// another. It prints how often.
func storm(args []string) {
	target, kind, ttl, until, number := args[0], args[1], ttlOf(args[2]), time.Now().Add(ttlOf(args[3])), args[4]
	var l swanlock.Locker = filelock.New(filelock.WithStaleAfter(ttl))
	opts := []swanlock.Option{swanlock.WithTTL(ttl), swanlock.WithFence()}
	switch kind {
	case "old":
		l, opts = oldLocker{}, opts[:1]
	case "read":
		opts[1] = swanlock.WithShared()
	}
	n := 0
	for time.Now().Before(until) {
		held, err := l.Acquire(context.Background(), target, opts...)
		if err != nil {
			panic(err)
		}
		f, err := os.OpenFile(number, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			panic(err)
		}
		how := syscall.LOCK_EX
		if kind == "read" {
			how = syscall.LOCK_SH
		}
		if err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB); err != nil {
			panic(fmt.Sprintf("%s: another one holds it: %v", kind, err))
		}
		b, _ := io.ReadAll(f)
		time.Sleep(time.Millisecond)
		if kind != "read" {
			old, _ := strconv.Atoi(string(b))
			if _, err := f.WriteAt([]byte(strconv.Itoa(old+1)), 0); err != nil {
				panic(err)
			}
			n++
		}
		if fence := held.Info().Fence; fence != 0 {
			g, err := os.OpenFile(number+".fences", os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o666)
			if err != nil {
				panic(err)
			}
			fmt.Fprintln(g, fence)
			g.Close()
		}
		f.Close()
		if err := held.Release(context.Background()); err != nil {
			panic(err)
		}
		if kind == "old" {
			time.Sleep(10 * time.Millisecond)
		}
	}
	fmt.Println(n)
}

// An oldLocker is SwanLake's own file lock (src/dq/lock.rs), step by step.
type oldLocker struct{ beforeLook, beforeRemove func() }

type oldLock struct {
	swanlock.DistributedLock // none
	path                     string
	owner                    string
}

func oldPayload(owner string) []byte {
	host, ok := os.LookupEnv("HOSTNAME")
	if !ok {
		host = "unknown"
	}
	s := fmt.Sprintf("host=%s\npid=%d\nacquired_at=%d\n", host, os.Getpid(), time.Now().Unix())
	if owner != "" {
		s += fmt.Sprintf("session_id=%s\n", owner)
	}
	return []byte(s)
}

func (l oldLocker) TryAcquire(_ context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	o, _ := swanlock.NewOptions(target, opts...)
	path := filepath.Join(filepath.Dir(target), filepath.Base(target)+".lock")
	for attempt := range 2 {
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		if err == nil {
			_, _ = f.Write(oldPayload("old"))
			f.Close()
			return &oldLock{path: path, owner: "old"}, nil
		}
		if !errors.Is(err, os.ErrExist) {
			return nil, err
		}
		if attempt > 0 {
			break
		}
		if l.beforeLook != nil {
			l.beforeLook()
		}
		if st, err := os.Stat(path); err == nil && time.Since(st.ModTime()) < o.TTL {
			break
		}
		if l.beforeRemove != nil {
			l.beforeRemove()
		}
		_ = os.Remove(path)
	}
	return nil, swanlock.ErrNotAcquired
}

func (l oldLocker) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	for {
		if held, err := l.TryAcquire(ctx, target, opts...); !errors.Is(err, swanlock.ErrNotAcquired) {
			return held, err
		}
		time.Sleep(10 * time.Millisecond) // Theirs looks once a minute.
	}
}

func (k *oldLock) Info() swanlock.Info { return swanlock.Info{} }

func (k *oldLock) Refresh(context.Context) error {
	return os.WriteFile(k.path, oldPayload(k.owner), 0o666)
}

func (k *oldLock) Release(context.Context) error {
	_ = os.Remove(k.path)
	return nil
}
