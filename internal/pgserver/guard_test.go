//go:build unix

package pgserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// openTemp makes a temporary folder that everybody can write to and makes it $TMPDIR. Testing's own are open to
// nobody else, such as the server's account.
func openTemp(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "pgserver")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	return dir
}

// checkEmpty fails the test unless the folder soon has nothing in it, and no process works there.
func checkEmpty(t *testing.T, temp string) {
	t.Helper()
	var left []string
	for begin := time.Now(); time.Since(begin) < 10*time.Second; time.Sleep(10 * time.Millisecond) {
		left, _ = filepath.Glob(filepath.Join(temp, "*"))
		for _, pid := range processes(t, temp+"/") {
			left = append(left, "process "+pid)
		}
		if len(left) == 0 {
			return
		}
	}
	t.Errorf("left in %s: %q", temp, left)
}

func TestTempFolder(t *testing.T) {
	t.Run("closed to the account", func(t *testing.T) {
		if os.Geteuid() != 0 {
			t.Skip("only root runs the server as somebody else")
		}
		temp := openTemp(t)
		if err := os.Chmod(temp, 0o700); err != nil {
			t.Fatal(err)
		}
		if s := start(t); filepath.Dir(s.Dir()) != "/tmp" {
			t.Errorf("the server is in %s, want it in /tmp", s.Dir())
		}
	})
	t.Run("too long for a socket", func(t *testing.T) {
		temp := filepath.Join(openTemp(t), strings.Repeat("long", 20))
		if err := errors.Join(os.Mkdir(temp, 0o777), os.Chmod(temp, 0o777)); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", temp)
		s := start(t)
		if filepath.Dir(s.Dir()) != "/tmp" {
			t.Errorf("the server is in %s, want it in /tmp", s.Dir())
		}
		query(t, open(t, "pgx", s.SocketURL()), "SELECT 'here'")
	})
	t.Run("as long as can be", func(t *testing.T) {
		temp := openTemp(t)
		temp = filepath.Join(temp, strings.Repeat("x", maxTemp-len(temp)-1))
		if err := errors.Join(os.Mkdir(temp, 0o777), os.Chmod(temp, 0o777)); err != nil {
			t.Fatal(err)
		}
		t.Setenv("TMPDIR", temp)
		s := start(t)
		if filepath.Dir(s.Dir()) != temp {
			t.Errorf("the server is in %s, want it in %s", s.Dir(), temp)
		}
		if socket := filepath.Join(s.Dir(), ".s.PGSQL.31999"); len(socket) > 103 {
			t.Errorf("the socket's path has %d bytes, want 103 at most", len(socket))
		}
		query(t, open(t, "pgx", s.SocketURL()), "SELECT 'here'")
	})
}

// Stopped and busy backends, and a postmaster that was stopped or killed, do not hinder Stop.
func TestStopDisturbedServer(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	for _, tt := range []struct {
		name       string
		postmaster syscall.Signal
	}{
		{"postmaster runs", 0},
		{"postmaster stopped", syscall.SIGSTOP},
		{"postmaster killed", syscall.SIGKILL},
		{"guard killed", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := start(t)
			db := open(t, "pgx", s.URL())
			for i := range 40 {
				conn, err := db.Conn(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { conn.Close() })
				if i%2 == 0 {
					go conn.ExecContext(context.Background(), "SELECT count(*) FROM generate_series(1, 1e9)")
					continue
				}
				var pid int
				if err := conn.QueryRowContext(t.Context(), "SELECT pg_backend_pid()").Scan(&pid); err != nil {
					t.Fatal(err)
				}
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			segment := sharedMemory(t, s)
			if tt.postmaster != 0 {
				if err := syscall.Kill(s.PID(), tt.postmaster); err != nil {
					t.Fatal(err)
				}
			}
			if tt.name == "guard killed" {
				if err := s.guard.cmd.Process.Kill(); err != nil {
					t.Fatal(err)
				}
			}
			begin := time.Now()
			stop(t, s)
			took := time.Since(begin)
			t.Logf("Stop took %v", took)
			if took > 7*time.Second { // then the guard kills what is left
				t.Errorf("Stop took %v, want under 7 s", took)
			}
			checkNoMemory(t, segment)
		})
	}
}

// sharedMemory returns the server's System V segment as /proc/sysvipc/shm begins its line: key and id.
func sharedMemory(t *testing.T, s *Server) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(s.data(), "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	var key uint32
	var id int
	if _, err := fmt.Sscan(strings.Split(string(b), "\n")[6], &key, &id); err != nil {
		t.Fatal(err)
	}
	segment := fmt.Sprintf("\n%10d %10d ", int32(key), id)
	if all, err := os.ReadFile("/proc/sysvipc/shm"); err == nil && !strings.Contains(string(all), segment) {
		t.Fatalf("no segment%q in\n%s", segment, all)
	}
	return segment
}

func checkNoMemory(t *testing.T, segment string) {
	t.Helper()
	if left, _ := os.ReadFile("/proc/sysvipc/shm"); strings.Contains(string(left), segment) {
		t.Errorf("shared memory is left:%s", segment)
	}
}

// A shell in which somebody looks at the server is none of the guard's.
func TestStopSparesOthers(t *testing.T) {
	s := start(t)
	other := exec.Command("sleep", "60")
	other.Dir = s.Dir()
	other.SysProcAttr = attributes(s.account) // so that the guard could end it
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	if ended, _ := exited(other.Process.Pid); ended {
		t.Error("it was ended")
	}
	other.Process.Kill()
	other.Wait()
}

// withoutProc has guards believe that there is no /proc.
func withoutProc() { guardScript = strings.ReplaceAll(guardScript, "/proc/", "/no/such/folder/") }

// Where there is no /proc, postmaster.pid does.
func TestStopWithoutProc(t *testing.T) {
	script := guardScript
	t.Cleanup(func() { guardScript = script })
	withoutProc()
	temp := openTemp(t)

	begin := time.Now()
	s := start(t)
	segment := sharedMemory(t, s)
	stop(t, s)
	checkNoMemory(t, segment)
	for _, after := range []time.Duration{100 * time.Millisecond, 300 * time.Millisecond} { // in initdb
		ctx, cancel := context.WithTimeout(t.Context(), after)
		if s, err := Start(ctx); err == nil {
			stop(t, s)
		}
		cancel()
	}
	checkEmpty(t, temp)
	if took := time.Since(begin); took > 25*time.Second { // three guards that see no end of their server take 30
		t.Errorf("took %v, want under 25 s", took)
	}
}

// TestWaysOut ends a process that has a server, in every way.
func TestWaysOut(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes long")
	}
	for _, tt := range []struct {
		name   string // what TestHelper does
		signal syscall.Signal
		want   string // how the process ends
	}{
		{"pass", 0, "exit status 0"},
		{"fail", 0, "exit status 1"},
		{"exit", 0, "exit status 3"},
		{"panic", 0, "exit status 2"},
		{"sleep", syscall.SIGINT, "signal: interrupt"},
		{"sleep", syscall.SIGKILL, "signal: killed"},
		{"child", syscall.SIGKILL, "signal: killed"},
		{"signals to the guard", syscall.SIGKILL, "signal: killed"},
		{"no proc", syscall.SIGKILL, "signal: killed"},
	} {
		t.Run(strings.TrimSpace(tt.name+" "+signalName(tt.signal)), func(t *testing.T) {
			temp := openTemp(t)
			p := startHelper(t, tt.name)
			dir := p.line(t, "server ")
			if filepath.Dir(dir) != temp {
				t.Fatalf("the server is in %q, want it in %q", dir, temp)
			}
			if tt.name == "child" {
				child, err := strconv.Atoi(p.line(t, "child "))
				if err != nil {
					t.Fatal(err)
				}
				defer syscall.Kill(child, syscall.SIGKILL) // it outlives its parent
			}
			if tt.name == "signals to the guard" {
				p.line(t, "sent")
			}
			if tt.signal != 0 {
				if err := p.cmd.Process.Signal(tt.signal); err != nil {
					t.Fatal(err)
				}
			}
			err := p.cmd.Wait()
			if _, statErr := os.Lstat(dir); statErr == nil && (tt.name == "pass" || tt.name == "fail") {
				t.Error("the tests ended, but the server is still there: Around did not stop it")
			}
			if got := p.cmd.ProcessState.String(); got != tt.want {
				t.Errorf("ended with %s (%v), want %s", got, err, tt.want)
			}
			checkEmpty(t, temp)
		})
	}
}

// A helper is this test binary running TestHelper in a process of its own.
type helper struct {
	cmd *exec.Cmd
	out *bufio.Scanner
}

const helperEnv = "SWANLOCK_PGSERVER_HELPER"

func startHelper(t *testing.T, what string) *helper {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelper$")
	cmd.Env = append(os.Environ(), helperEnv+"="+what)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return &helper{cmd, bufio.NewScanner(out)}
}

// line returns what follows the prefix in the next line that has it.
func (h *helper) line(t *testing.T, prefix string) string {
	t.Helper()
	for h.out.Scan() {
		if rest, ok := strings.CutPrefix(h.out.Text(), prefix); ok {
			return rest
		}
	}
	t.Fatalf("the helper ended without a line %q: %v", prefix, errors.Join(h.out.Err(), h.cmd.Wait()))
	return ""
}

func TestHelper(t *testing.T) {
	what := os.Getenv(helperEnv)
	if what == "" {
		t.Skip("for the other tests")
	}
	if what == "no proc" {
		withoutProc()
	}
	fmt.Println("starting")
	s := Default()
	fmt.Println("server " + s.Dir())
	switch what {
	case "pass":
	case "fail":
		t.Fail()
	case "exit":
		os.Exit(3)
	case "panic":
		panic("as a test may")
	case "child":
		child := exec.Command("sleep", "60")
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		fmt.Println("child " + strconv.Itoa(child.Process.Pid))
		time.Sleep(time.Minute)
	case "signals to the guard":
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM} {
			if err := s.guard.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Println("sent")
		time.Sleep(time.Minute)
	case "deaf":
		signal.Ignore(os.Interrupt)
		fmt.Println("url " + s.URL())
		time.Sleep(time.Minute)
	default:
		time.Sleep(time.Minute)
	}
}
