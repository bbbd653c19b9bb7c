package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// procs are the worker processes: a number of slots, each with one that runs.
// Process faults are signals of Unix: there are none on Windows.
type procs struct {
	argv     []string // a worker's
	config   workerConfig
	recorder *recorder

	mu     sync.Mutex
	slots  []*slot
	ended  bool
	begun  int
	all    []Proc
	crash  []string // how processes ended that no fault had killed
	broken error    // a journal that could not be read
	group  sync.WaitGroup
}

type slot struct {
	number int
	mu     sync.Mutex // held by a fault
	proc   *proc
}

type proc struct {
	cmd    *exec.Cmd
	name   string
	stdin  io.WriteCloser
	stderr head
	read   chan struct{} // closed when its journal has been read to the end
	killed bool
	asked  bool // to finish
}

func (ps *procs) start(workers int) error {
	for i := range workers {
		s := &slot{number: i}
		ps.slots = append(ps.slots, s)
		if err := ps.spawn(s); err != nil {
			return err
		}
	}
	return nil
}

// spawn starts a process in a slot.
func (ps *procs) spawn(s *slot) error {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.ended {
		return nil
	}
	cfg := ps.config
	cfg.Name = fmt.Sprintf("w%d.%d", s.number, ps.begun)
	cfg.Slot = s.number
	cfg.Seed += uint64(ps.begun)
	ps.begun++
	first, err := json.Marshal(cfg)
	if err != nil {
		return err
	}
	p := &proc{cmd: exec.Command(ps.argv[0], ps.argv[1:]...), name: cfg.Name, read: make(chan struct{})}
	for _, e := range os.Environ() { // the drivers read these
		if !strings.HasPrefix(e, "PG") && !strings.HasPrefix(e, "SWANL") {
			p.cmd.Env = append(p.cmd.Env, e)
		}
	}
	p.cmd.Stderr = &p.stderr
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C is for us alone
	dieWithParent(p.cmd.SysProcAttr)
	if p.stdin, err = p.cmd.StdinPipe(); err != nil {
		return err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := p.cmd.Start(); err != nil {
		return err
	}
	if _, err := p.stdin.Write(append(first, '\n')); err != nil {
		return err
	}
	s.proc = p
	ps.group.Go(func() {
		defer close(p.read)
		err := ps.recorder.read(out)
		ps.recorder.gone(p.name)
		io.Copy(io.Discard, out)
		how := p.cmd.Wait()
		ps.mu.Lock()
		defer ps.mu.Unlock()
		ps.broken = errors.Join(ps.broken, err)
		gone := Proc{Name: p.name}
		switch {
		case p.killed:
			gone.Killed = now()
		case how != nil:
			ps.crash = append(ps.crash, fmt.Sprintf("worker %s ended by itself (%v): %s", p.name, how, p.stderr.String()))
		case !p.asked:
			ps.crash = append(ps.crash, fmt.Sprintf("worker %s finished without being asked: %s", p.name, p.stderr.String()))
		}
		ps.all = append(ps.all, gone)
	})
	return nil
}

// kill kills the process of a slot, whatever state it is in, and starts the
// next.
func (ps *procs) kill(s *slot) error {
	p := s.proc
	ps.mu.Lock()
	p.killed = true
	ps.mu.Unlock()
	p.signal(syscall.SIGKILL)
	<-p.read
	p.stdin.Close()
	return ps.spawn(s)
}

func (p *proc) signal(sig syscall.Signal) { _ = p.cmd.Process.Signal(sig) }

// finish asks all processes to finish. It returns those that did not within the
// time given, after it made them print where they hang, and killed them.
func (ps *procs) finish(within time.Duration) (stuck []string) {
	ps.mu.Lock()
	ps.ended = true
	for _, s := range ps.slots {
		if s.proc != nil {
			s.proc.asked = true
		}
	}
	ps.mu.Unlock()
	for _, s := range ps.slots {
		if s.proc != nil {
			s.proc.stdin.Close()
			s.proc.signal(syscall.SIGCONT)
		}
	}
	alarm := time.After(within)
	for _, s := range ps.slots {
		p := s.proc
		if p == nil {
			continue
		}
		select {
		case <-p.read:
			continue
		case <-alarm:
			alarm = closedTime
		}
		ps.mu.Lock()
		p.killed = true
		ps.mu.Unlock()
		p.signal(syscall.SIGQUIT) // Go prints its goroutines
		select {
		case <-p.read:
		case <-time.After(5 * time.Second):
		}
		p.signal(syscall.SIGKILL)
		<-p.read
		stuck = append(stuck, fmt.Sprintf("worker %s did not finish within %v:\n%s", p.name, within, p.stderr.String()))
	}
	ps.group.Wait()
	return stuck
}

var closedTime = func() <-chan time.Time {
	c := make(chan time.Time)
	close(c)
	return c
}()

// A head keeps the beginning of what is written to it.
type head struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *head) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if room := 16<<10 - t.buf.Len(); room > 0 {
		t.buf.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

func (t *head) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// left is the result of the processes themselves: those that were stuck or ended by
// themselves, and what else was found at the end.
func (ps *procs) left(stuck []string, at int64, others ...Finding) Result {
	r := Result{Kind: KindStuck, Checked: ps.begun, Findings: others}
	for _, text := range stuck {
		r.Findings = append(r.Findings, Finding{Kind: KindStuck, At: at, Text: text})
	}
	for _, text := range ps.crash {
		r.Findings = append(r.Findings, Finding{Kind: KindCrash, At: at, Text: text})
	}
	return r
}
