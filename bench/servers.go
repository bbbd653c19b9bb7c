package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// servers are what the contenders talk to, all over TCP on 127.0.0.1. One that
// is not installed has no address.
type servers struct {
	postgres     *pgserver.Server
	postgresAddr string
	redis, etcd  string
	consul       string
	versions     map[string]string
	guards       []*guarded
}

func (s *servers) startServers() {
	// 10,000 locks are held twice at once, and a Pool takes half of the table at most.
	s.postgres = must(pgserver.Start(context.Background(), pgserver.WithSetting("max_locks_per_transaction", "256")))
	s.postgresAddr = s.postgres.Addr()
	s.versions = map[string]string{"postgres": fmt.Sprintf("%d.%d", s.postgres.Version()/10000, s.postgres.Version()%10000), "redis": missing("redis-server"), "etcd": missing("etcd"),
		"consul": "left out: make consul builds it"}
	if program, err := exec.LookPath("redis-server"); err == nil {
		s.redis = freeAddr()
		_, port, _ := net.SplitHostPort(s.redis)
		s.start(s.redis, program, "--bind", "127.0.0.1", "--port", port, "--save", "", "--appendonly", "no")
		s.versions["redis"] = version(program)
	}
	if program, err := exec.LookPath("etcd"); err == nil {
		s.etcd = freeAddr()
		client, peer := "http://"+s.etcd, "http://"+freeAddr()
		s.start(s.etcd, program, "--data-dir", "data", "--log-level", "error",
			"--listen-client-urls", client, "--advertise-client-urls", client,
			"--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", "default="+peer)
		s.versions["etcd"] = version(program)
	}
	cache, _ := os.UserCacheDir()
	if program, err := exec.LookPath(filepath.Join(cache, "swanlock", "consul-1.14.11")); err == nil {
		s.startConsul(program)
	}
}

func (s *servers) stopServers() {
	for _, g := range s.guards {
		g.stop()
	}
	if s.postgres != nil {
		if err := s.postgres.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
		}
	}
}

// A guarded server is a shell's child. The shell kills it and removes its folder
// when its standard input ends, as it does when this process ends, however that is.
type guarded struct {
	cmd  *exec.Cmd
	life io.Closer
}

const guard = `trap '' INT
"$@" >log 2>&1 &
read -r _
kill -9 $!
wait $! 2>/dev/null
rm -rf "$PWD"`

// start starts a server in a folder of its own and waits until it listens on addr.
func (s *servers) start(addr, program string, args ...string) {
	dir := must(os.MkdirTemp(memory(), "swanlock-bench-"))
	cmd := exec.Command("sh", append([]string{"-c", guard, "sh", program}, args...)...)
	cmd.Dir = dir
	g := &guarded{cmd, must(cmd.StdinPipe())}
	if err := cmd.Start(); err != nil {
		check(errors.Join(err, os.RemoveAll(dir)))
	}
	s.guards = append(s.guards, g)
	for start := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			conn.Close()
			return
		}
		if time.Since(start) > 10*time.Second {
			log, _ := os.ReadFile(filepath.Join(dir, "log"))
			check(fmt.Errorf("%s does not start: %w; its log: %s", program, err, log))
		}
	}
}

func (g *guarded) stop() {
	g.life.Close()
	g.cmd.Wait()
}

// memory is a file system without a disk, if there is one: etcd, which flushes
// each write, is at its best there.
func memory() string {
	const shm = "/dev/shm"
	if f, err := os.CreateTemp(shm, ""); err == nil {
		f.Close()
		os.Remove(f.Name())
		return shm
	}
	return ""
}

// freeAddr is an address that nobody listens on.
func freeAddr() string {
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	defer l.Close()
	return l.Addr().String()
}

func missing(program string) string {
	return "left out: there is no " + program + " on the PATH (see README.md)"
}

// version is the first line of what a program says of itself.
func version(program string) string {
	out, err := exec.Command(program, "--version").Output()
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(out), "\n")
	return line
}
