package main

import (
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hashicorp/consul/api"

	"github.com/swanlake-io/swanlock/backends/consullock"
)

// startConsul starts Consul, which keeps its data in memory, and waits until it has a
// leader.
func (s *servers) startConsul(program string) {
	s.consul = freeAddr()
	args := []string{"agent", "-dev", "-client", "127.0.0.1", "-log-level", "error", "-hcl", "connect { enabled = false }",
		"-dns-port", "-1", "-grpc-port", "-1", "-grpc-tls-port", "-1", "-serf-wan-port", "-1"}
	for flag, addr := range map[string]string{"-http-port": s.consul, "-server-port": freeAddr(), "-serf-lan-port": freeAddr()} {
		_, port, _ := net.SplitHostPort(addr)
		args = append(args, flag, port)
	}
	s.start(s.consul, program, args...)
	client := s.dialConsul()
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		id, _, err := client.Session().CreateNoChecks(nil, nil)
		if err == nil {
			_, err = client.Session().Destroy(id, nil)
		}
		if err == nil {
			break
		}
		if time.Since(start) > 30*time.Second {
			check(fmt.Errorf("consul has no leader: %w", err))
		}
	}
	s.versions["consul"] = version(program)
}

func (s *servers) dialConsul() *api.Client {
	config := api.DefaultConfig()
	config.Address = s.consul
	return must(api.NewClient(config))
}

// consulRow sets consullock beside api.Lock, which makes a session for each lock too.
func consulRow(h *harness) {
	if h.consul == "" {
		return
	}
	client := h.dialConsul()
	for _, n := range []int{1, 32} {
		got := h.race(fmt.Sprintf("Consul/goroutines=%d", n), "pairs/s", h.round, []contender{
			{"swanlock", rate(tries(h.ctx, shared(must(consullock.New(client)), n), targets("consul", n)))},
			{"api", rate(apiLocks(client, targets("consul-api", n)))},
		})
		h.against(fmt.Sprintf("Consul, %d goroutines", n), got, "swanlock", "api", atLeast(0.9))
	}
}

// apiLocks take the targets with Consul's own Lock.
func apiLocks(client *api.Client, targets []string) []acquirer {
	acquirers := make([]acquirer, len(targets))
	for i, target := range targets {
		acquirers[i] = func() (func() error, error) {
			l, err := client.LockOpts(&api.LockOptions{Key: target, SessionTTL: "10s"})
			if err != nil {
				return nil, err
			}
			held, err := l.Lock(nil)
			if err != nil {
				return nil, err
			}
			if held == nil {
				return nil, errors.New("api.Lock: not locked")
			}
			return l.Unlock, nil
		}
	}
	return acquirers
}
