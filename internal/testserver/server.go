//go:build unix

// Package testserver runs a real server for a test: on a port of its own, in a
// folder of its own, to be killed, stopped, started again with or without its data,
// and cut off by a proxy.
package testserver

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A Server is one process of a server's program.
type Server struct {
	t       testing.TB
	dir     string
	program string
	args    []string
	ready   func() error

	mu    sync.Mutex
	cmd   *exec.Cmd // the guard; nil while nothing runs
	life  io.WriteCloser
	child int // the server's own process
}

// guard starts the server, prints its process, and kills it when it is told to by a
// line, or when standard input ends: the test's process is gone, however that ended.
// Then nobody else removes the folder.
const guard = `trap '' INT
"$@" >>log 2>&1 </dev/null &
echo $!
read -r _ && keep=1
kill -9 $!
wait $! 2>/dev/null
[ "$keep" ] || rm -rf "$PWD"
exit 0`

// Start runs program in a temporary folder, which lies in memory where that can be,
// and waits until ready returns nil. The server is killed when t ends.
func Start(t testing.TB, ready func() error, program string, args ...string) *Server {
	t.Helper()
	s := &Server{t: t, dir: folder(t), program: program, args: args, ready: ready}
	t.Cleanup(s.Kill)
	s.Restart()
	return s
}

func folder(t testing.TB) string {
	t.Helper()
	// A server that flushes each write, as etcd does, has no disk to wait for there.
	dir, err := os.MkdirTemp("/dev/shm", "swanlock-test-")
	if err != nil {
		dir, err = os.MkdirTemp("", "swanlock-test-")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Restart kills the server, if it runs, and starts it on the data that it left.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	cmd := exec.Command("sh", append([]string{"-c", guard, "sh", s.program}, s.args...)...)
	cmd.Dir = s.dir
	// A signal of the terminal's, which ends the test, is none of the server's.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	life, err := cmd.StdinPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		s.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.mu.Lock()
	s.cmd, s.life = cmd, life
	s.mu.Unlock()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		s.t.Fatalf("%s: %v", s.program, err)
	}
	child, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		s.t.Fatalf("%s: %v", s.program, err)
	}
	s.mu.Lock()
	s.child = child
	s.mu.Unlock()
	for start := time.Now(); ; time.Sleep(20 * time.Millisecond) {
		err := s.ready()
		if err == nil {
			return
		}
		if time.Since(start) > time.Minute {
			log, _ := os.ReadFile(filepath.Join(s.dir, "log"))
			s.t.Fatalf("%s does not start: %v; its log:\n%s", s.program, err, log)
		}
	}
}

// RestartEmpty kills the server and starts it without the data that it had.
func (s *Server) RestartEmpty() {
	s.t.Helper()
	s.Kill()
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			s.t.Fatal(err)
		}
	}
	s.Restart()
}

// Kill kills the server, as a crash does. It does nothing if none runs.
func (s *Server) Kill() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return
	}
	_, _ = io.WriteString(s.life, "\n") // It fails if the guard itself was killed.
	s.life.Close()
	_ = s.cmd.Wait()
	s.cmd = nil
}

// Stop stops the server with SIGSTOP: it answers nothing, and its connections stay.
// The function that it returns has it go on.
func (s *Server) Stop() (resume func()) {
	s.t.Helper()
	s.mu.Lock()
	child := s.child
	s.mu.Unlock()
	if err := syscall.Kill(child, syscall.SIGSTOP); err != nil {
		s.t.Fatal(err)
	}
	for start := time.Now(); !stopped(child); time.Sleep(time.Millisecond) {
		if time.Since(start) > Patience {
			s.t.Fatalf("%s does not stop", s.program)
		}
	}
	return sync.OnceFunc(func() { _ = syscall.Kill(child, syscall.SIGCONT) })
}

// stopped reports whether all threads of a process have stopped. Each does so for
// itself, and one that has not may still answer. Where there is no /proc, it waits.
func stopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if len(stats) == 0 {
		time.Sleep(100 * time.Millisecond)
		return true
	}
	for _, file := range stats {
		b, err := os.ReadFile(file)
		if err != nil {
			continue // It has ended.
		}
		// "pid (name) state …", and the name may have anything in it.
		stat := string(b)
		if state := strings.TrimSpace(stat[strings.LastIndexByte(stat, ')')+1:]); !strings.HasPrefix(state, "T") {
			return false
		}
	}
	return true
}

// FreeAddr returns an address of this machine that nobody listens on, and that no other
// test of this process has until t ends. Its port is none of those that systems give to
// programs that ask for any, nor of pgserver's, since a connection of somebody's, or
// another server, could have it before the server does, or while that is restarted.
func FreeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 26000+rand.IntN(6000))
		if _, has := given.LoadOrStore(addr, true); has {
			continue
		}
		t.Cleanup(func() { given.Delete(addr) })
		if l, err := net.Listen("tcp", addr); err == nil {
			defer l.Close()
			return addr
		}
	}
	t.Fatal("there is no free port")
	return ""
}

// given has the addresses that tests have.
var given sync.Map

// Port returns the port of addr.
func Port(t testing.TB, addr string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// Find returns the path of program, or skips t, and says so where it is seen.
func Find(t testing.TB, program, how string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		Missing(t, program, how)
	}
	return path
}

// Missing skips t for want of program, and says so once for each program where it is
// seen also without go test -v.
func Missing(t testing.TB, program, how string) {
	t.Helper()
	if _, before := told.LoadOrStore(program, true); !before {
		fmt.Fprintf(os.Stderr, "\n*** NOT TESTED: %s is missing: %s ***\n\n", program, how)
	}
	t.Skipf("NOT TESTED: %s is missing: %s", program, how)
}

var told sync.Map // by program
