package main

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"
)

// silentServer takes connections and says nothing. It returns its DSN and a
// function that reports whether anybody came.
func silentServer(t *testing.T) (dsn string, called func() bool) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	came := make(chan struct{})
	go func() {
		var conns []net.Conn
		for {
			conn, err := l.Accept()
			if err != nil {
				for _, c := range conns {
					c.Close()
				}
				return
			}
			if conns = append(conns, conn); len(conns) == 1 {
				close(came)
			}
		}
	}()
	return fmt.Sprintf("SWANLAKE_LOCK_POSTGRES_CONNECTION=postgres://u@%s/d?sslmode=disable", l.Addr()), func() bool {
		select {
		case <-came:
			return true
		default:
			return false
		}
	}
}

// --timeout bounds connecting too, and nothing else does then.
func TestTimeoutBoundsConnecting(t *testing.T) {
	slow(t)
	t.Parallel()
	for _, timeout := range []time.Duration{500 * time.Millisecond, connectTimeout + 2*time.Second} {
		t.Run(timeout.String(), func(t *testing.T) {
			t.Parallel()
			dsn, _ := silentServer(t)
			began := time.Now()
			swanlockCommand(t, []string{dsn}, "run", "--timeout", timeout.String(), "t", "--", "true").start().
				want(69).says("cannot connect to PostgreSQL: no answer within " + timeout.String())
			if took := time.Since(began); took < timeout {
				t.Errorf("gave up after %v", took)
			}
		})
	}
}

// A signal while a command connects is told as one.
func TestSignalWhileConnecting(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"migrate", "up"}, {"migrate", "status"}, {"run", "t", "--", "true"}} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			dsn, called := silentServer(t)
			p := swanlockCommand(t, []string{dsn}, args...).start()
			eventually(t, "connection", called)
			_ = p.Process.Signal(sig)
			p.want(128 + int(sig)).says("ended by a signal")
		}
	}
}

func TestHeldElsewhereInSilence(t *testing.T) {
	slow(t)
	t.Parallel()
	target := t.Name()
	defer hold(t, target, false)()
	for _, tt := range []struct {
		flags string
		code  int
	}{
		{"-E 0 ", 0},
		{"-E 0 --timeout 5s ", 0},
		{"--quiet ", 1},
		{"--quiet -E 7 --timeout 5s ", 7},
	} {
		p := swanlockRun(t, runArgs(tt.flags+target, "echo ran")...).want(tt.code)
		if got := p.stdout.String() + p.stderr.String(); got != "" {
			t.Errorf("%s: it says %q", tt.flags, got)
		}
	}
}

// What is wrong is told with --quiet as well.
func TestQuietTellsErrors(t *testing.T) {
	t.Parallel()
	swanlockCommand(t, []string{"NO_SERVER=1"}, "run", "--quiet", "-E", "0", "t", "--", "true").start().want(78).says("no PostgreSQL server")
}

// With --poll nobody waits inside the server.
func TestPoll(t *testing.T) {
	slow(t)
	t.Parallel()
	target := t.Name()
	free := hold(t, target, false)
	defer free()
	waiting := func(name string) (n int) {
		err := openDB(t, migrated(t)).QueryRow(`SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid)
			WHERE NOT l.granted AND a.application_name = $1`, name).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	start := func(name string, flags string) *tested {
		p := swanlockCommand(t, nil, runArgs("--wait "+flags+" "+target, "exit 4")...)
		p.Env = append(p.Env, "PGAPPNAME="+name)
		return p.start()
	}
	p := start("polls", "--poll")
	for range 100 {
		if n := waiting("polls"); n != 0 {
			t.Fatalf("%d wait in the server", n)
		}
		time.Sleep(10 * time.Millisecond)
	}
	q := start("waits", "")
	eventually(t, "waiter in the server", func() bool { return waiting("waits") == 1 })
	free()
	p.want(4)
	q.want(4)
}
