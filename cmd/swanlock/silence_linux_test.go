package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// TestCutForGood: a server that is silent for ever keeps swanlock no longer than its
// bounds say, when it has ended the command.
func TestCutForGood(t *testing.T) {
	slow(t)
	t.Parallel()
	migrated(t)
	for name, end := range map[string]string{"after a loss": "exec sleep 600", "after the command": "exit 0"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			proxy := newProxy(t, pgserver.Default().Addr())
			defer proxy.close()
			dsn := strings.Replace(pgserver.Default().URL(), pgserver.Default().Addr(), proxy.addr, 1)
			mark := file(t)
			p := swanlockCommand(t, env(dsn), runArgs("--ttl 3s --grace 1s "+strings.ReplaceAll(t.Name(), " ", "_"), `echo $$ >"$1"; while [ -e "$1" ]; do sleep 0.01; done; `+end, mark)...).start()
			ready(t, mark)
			proxy.freeze()
			if err := os.Remove(mark); err != nil {
				t.Fatal(err)
			}
			p.want(75).says("was lost")
		})
	}
}

// TestSocketsDoNotBlock: the lock's connection, which the supervisor has open as well,
// has deadlines still. A descriptor that blocks has none.
func TestSocketsDoNotBlock(t *testing.T) {
	t.Parallel()
	mark := file(t)
	p := swanlockRun(t, runArgs("sockets", `echo $$ >"$1"; exec sleep 600`, mark)...)
	ready(t, mark)
	fds := "/proc/" + strconv.Itoa(p.Process.Pid) + "/fd"
	entries, err := os.ReadDir(fds)
	if err != nil {
		t.Fatal(err)
	}
	sockets := 0
	for _, e := range entries {
		if to, _ := os.Readlink(filepath.Join(fds, e.Name())); !strings.HasPrefix(to, "socket:") {
			continue
		}
		sockets++
		_, flags, _ := strings.Cut(read(t, strings.Replace(fds, "/fd", "/fdinfo", 1)+"/"+e.Name()), "flags:")
		if n, err := strconv.ParseUint(strings.Fields(flags)[0], 8, 64); err != nil || n&syscall.O_NONBLOCK == 0 {
			t.Errorf("the socket %s has the flags %o, %v", e.Name(), n, err)
		}
	}
	if sockets == 0 {
		t.Error("it has no connection")
	}
	_ = p.Process.Signal(syscall.SIGTERM)
	p.code()
}
