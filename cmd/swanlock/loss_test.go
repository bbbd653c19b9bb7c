package main

import (
	"context"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// terminate ends the session that holds target.
func terminate(t *testing.T, target string) {
	t.Helper()
	pids := holders(t, target)
	if len(pids) != 1 {
		t.Fatalf("%q is held by %v", target, pids)
	}
	if _, err := openDB(t, migrated(t)).Exec("SELECT pg_terminate_backend($1)", pids[0]); err != nil {
		t.Fatal(err)
	}
}

func TestLoss(t *testing.T) {
	slow(t)
	t.Parallel()
	for name, ttl := range map[string]string{"with a TTL": "1m", "without": "0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mark, target := file(t), "loss "+name
			p := swanlockRun(t, append([]string{"run", "--ttl", ttl, target},
				sh(`exec 2>&-; trap 'echo terminated; exit 0' TERM; echo $$ >"$1"; while :; do sleep 0.05; done`, mark)...)...)
			ready(t, mark)
			began := time.Now()
			terminate(t, target)
			p.want(75).says(`the lock on "` + target + `" was lost while the command ran, which exited with 0`)
			if took := time.Since(began); took > 8*time.Second {
				t.Errorf("the loss was found after %v", took)
			}
			if got := p.stdout.String(); got != "terminated\n" {
				t.Errorf("the command says %q", got)
			}
		})
	}
}

// A command that ignores SIGTERM is killed after the grace, with all it started.
func TestLossKills(t *testing.T) {
	slow(t)
	t.Parallel()
	mark := file(t)
	p := swanlockRun(t, runArgs("--grace 700ms loss-kills", `exec 2>&-; trap "echo told" TERM
		sh -c 'trap "" TERM; while :; do sleep 0.05; done' & echo $! >"$1"
		while :; do sleep 0.05; done`, mark)...)
	pid := ready(t, mark)
	terminate(t, "loss-kills")
	p.want(75).says("ended by a signal (killed)")
	if got := p.stdout.String(); !strings.HasPrefix(got, "told\n") {
		t.Errorf("the command was not told first: %q", got)
	}
	eventually(t, "end of what the command started", func() bool { return !alive(t, pid) })
}

// A stopped command does not miss that it is to end.
func TestLossStopped(t *testing.T) {
	slow(t)
	t.Parallel()
	mark := file(t)
	p := swanlockRun(t, runArgs("--grace 15s loss-stopped", `exec 2>&-; trap 'echo told; exit 0' TERM; echo $$ >"$1"; kill -STOP $$; sleep 600`, mark)...)
	ready(t, mark)
	terminate(t, "loss-stopped")
	p.want(75)
	if got := p.stdout.String(); got != "told\n" {
		t.Errorf("the command says %q", got)
	}
}

// The command obeys at once, but not what it started: that gets the grace, and
// is then killed.
func TestLossSweeps(t *testing.T) {
	slow(t)
	t.Parallel()
	mark := file(t)
	p := swanlockRun(t, runArgs("--grace 700ms loss-sweeps", `sh -c 'trap "" TERM; while :; do sleep 0.05; done' >&- 2>&- & echo $! >"$1"; wait`, mark)...)
	pid := ready(t, mark)
	terminate(t, "loss-sweeps")
	p.want(75).says("ended by a signal (terminated)")
	eventually(t, "end of what the command started", func() bool { return !alive(t, pid) })
}

// A loss that is only found when the command has ended counts as well.
func TestLossFoundAtTheEnd(t *testing.T) {
	slow(t)
	t.Parallel()
	mark := file(t)
	p := swanlockRun(t, runArgs("--ttl 20m loss-at-end", `echo $$ >"$1"; while [ -e "$1" ]; do sleep 0.01; done; exit 4`, mark)...)
	ready(t, mark)
	terminate(t, "loss-at-end")
	if err := os.Remove(mark); err != nil {
		t.Fatal(err)
	}
	p.want(75).says("was lost")
}

// A restart of the server loses every lock.
func TestServerRestart(t *testing.T) {
	slow(t)
	t.Parallel()
	server, err := pgserver.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Stop()
	mark := file(t)
	p := swanlockCommand(t, []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + server.URL()}, runArgs("--ttl 0 restart", `echo $$ >"$1"; exec sleep 600`, mark)...).start()
	ready(t, mark)
	if err := server.Restart(t.Context(), pgserver.Immediate); err != nil {
		t.Fatal(err)
	}
	p.want(75).says("ended by a signal (terminated)")
}

// A cut network: the command is gone while the server still keeps the lock.
func TestNetworkCut(t *testing.T) {
	slow(t)
	t.Parallel()
	migrated(t)
	proxy := newProxy(t, pgserver.Default().Addr())
	dsn := strings.Replace(pgserver.Default().URL(), pgserver.Default().Addr(), proxy.addr, 1)
	mark := file(t)
	p := swanlockCommand(t, []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + dsn},
		runArgs("--ttl 6s cut", `trap 'echo told' TERM; echo $$ >"$1"; while :; do sleep 0.05; done`, mark)...).start()
	pid := ready(t, mark)
	time.Sleep(2 * time.Second) // a refresh or two
	proxy.freeze()
	at := time.Now()
	eventually(t, "end of the command", func() bool { return !alive(t, pid) })
	took := time.Since(at)
	if len(holders(t, "cut")) != 1 {
		t.Errorf("the lock was free before the command was gone, %v after the cut", took)
	}
	eventually(t, "free lock", func() bool { return len(holders(t, "cut")) == 0 })
	proxy.close() // so that swanlock need not wait for its bounds
	p.want(75)
	if got := p.stderr.String(); !strings.Contains(got, "no refresh got through for 3.4s of its TTL of 6s") {
		t.Errorf("stderr: %s", got)
	}
	if got := p.stdout.String(); !strings.HasPrefix(got, "told\n") {
		t.Errorf("the command was not told first: %q", got)
	}
}

// A stderr that nobody reads keeps swanlock from nothing: when the network is cut, the
// command ends all the same.
func TestFullStderr(t *testing.T) {
	slow(t)
	t.Parallel()
	migrated(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_ = w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	for err == nil {
		_, err = w.Write(make([]byte, 4096))
	}
	proxy := newProxy(t, pgserver.Default().Addr())
	dsn := strings.Replace(pgserver.Default().URL(), pgserver.Default().Addr(), proxy.addr, 1)
	mark := file(t)
	p := swanlockCommand(t, []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + dsn},
		runArgs("--ttl 12s --grace 1s "+t.Name(), `echo $$ >"$1"; exec 2>&-; exec sleep 600`, mark)...)
	p.Stderr = w
	p.start()
	w.Close()
	pid := ready(t, mark)
	proxy.freeze()
	eventually(t, "end of the command", func() bool { return !alive(t, pid) })
	proxy.close()
	r.Close()
	p.want(75)
}

// A server that falls silent while swanlock waits does not say that somebody else
// has the lock.
func TestSilentWait(t *testing.T) {
	slow(t)
	t.Parallel()
	migrated(t)
	for _, flags := range []string{"--timeout 4s ", "-E 0 --timeout 4s "} {
		proxy := newProxy(t, pgserver.Default().Addr())
		dsn := strings.Replace(pgserver.Default().URL(), pgserver.Default().Addr(), proxy.addr, 1)
		mark := file(t)
		holder := swanlockRun(t, runArgs(t.Name(), `: >"$1"; exec sleep 600`, mark)...)
		eventually(t, "holder", func() bool { return exists(mark) })
		p := swanlockCommand(t, []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + dsn}, runArgs(flags+t.Name(), "echo ran")...).start()
		time.Sleep(time.Second)
		proxy.freeze()
		p.want(exitUnavailable).says("the server has fallen silent")
		proxy.close()
		_ = holder.Process.Kill()
		holder.code()
	}
}

// While swanlock is stopped it cannot keep the lock; when it goes on it stops
// the command.
func TestStopped(t *testing.T) {
	slow(t)
	t.Parallel()
	mark := file(t)
	p := swanlockRun(t, runArgs("--ttl 3s stopped", `echo $$ >"$1"; exec sleep 600`, mark)...)
	ready(t, mark)
	_ = p.Process.Signal(syscall.SIGSTOP)
	eventually(t, "free lock", func() bool { return len(holders(t, "stopped")) == 0 })
	_ = p.Process.Signal(syscall.SIGCONT)
	p.want(75).says("was lost")
}

// A stderr that nobody reads any more does not end swanlock before the command.
func TestBrokenStderr(t *testing.T) {
	slow(t)
	t.Parallel()
	mark := file(t)
	p := swanlockCommand(t, nil, runArgs("broken-stderr", `trap 'echo told; exit 0' TERM; exec 2>&-; echo $$ >"$1"; while :; do sleep 0.05; done`, mark)...)
	p.Stderr = nil
	r, err := p.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.start()
	ready(t, mark)
	r.Close()
	terminate(t, "broken-stderr")
	p.want(75)
	if got := p.stdout.String(); got != "told\n" {
		t.Errorf("the command says %q", got)
	}
}

// A proxy passes bytes on until it is frozen: then it loses them.
type proxy struct {
	addr string
	l    net.Listener

	mu     sync.Mutex
	frozen bool
	conns  []net.Conn
}

func newProxy(t *testing.T, to string) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{addr: l.Addr().String(), l: l}
	t.Cleanup(p.close)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", to)
			if err != nil {
				in.Close()
				return
			}
			p.mu.Lock()
			p.conns = append(p.conns, in, out)
			p.mu.Unlock()
			go p.pass(in, out)
			go p.pass(out, in)
		}
	}()
	return p
}

func (p *proxy) pass(from io.Reader, to io.Writer) {
	buf := make([]byte, 4096)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		p.mu.Lock()
		frozen := p.frozen
		p.mu.Unlock()
		if !frozen {
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}

func (p *proxy) freeze() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.frozen = true
}

func (p *proxy) close() {
	p.l.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}
