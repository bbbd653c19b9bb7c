//go:build unix

package testserver

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A Node is a server of one of the programs below.
type Node struct {
	*Server
	Addr  string
	Ready func() error // returns nil if it serves
}

// ConsulPath returns the path of the Consul that make consul has built.
func ConsulPath() (program string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	program = filepath.Join(cache, "swanlock", "consul-1.14.11")
	_, err = os.Stat(program)
	return program, err
}

// Consul starts a Consul of one node, which keeps its data, and refuses sessions with
// a TTL under minTTL. config is more of its configuration, in HCL.
func Consul(t testing.TB, minTTL string, config ...string) *Node {
	t.Helper()
	return ConsulCluster(t, 1, minTTL, config...)[0]
}

// ConsulCluster is Consul with n nodes.
func ConsulCluster(t testing.TB, n int, minTTL string, config ...string) []*Node {
	t.Helper()
	program, err := ConsulPath()
	if err != nil {
		Missing(t, "Consul", "make consul builds it, in ten minutes or so")
	}
	args := []string{"-server", fmt.Sprintf("-bootstrap-expect=%d", n), "-data-dir=data", "-bind=127.0.0.1", "-client=127.0.0.1",
		"-log-level=error", "-serf-wan-port=-1", "-dns-port=-1", "-grpc-port=-1", "-grpc-tls-port=-1"}
	// As with -dev, elections take no longer than they must.
	for _, hcl := range append(config, fmt.Sprintf(`session_ttl_min = %q, connect { enabled = false }, performance { raft_multiplier = 1 }`, minTTL)) {
		args = append(args, "-hcl", hcl)
	}
	var nodes []*Node
	var gossip []string
	for range n {
		addr := FreeAddr(t)
		nodes = append(nodes, &Node{Addr: addr, Ready: func() error { return makesSession("http://" + addr) }})
		gossip = append(gossip, FreeAddr(t))
	}
	for i, node := range nodes {
		started := node.Ready
		own := []string{"agent", fmt.Sprintf("-node=node%d", i), "-http-port=" + Port(t, node.Addr), "-server-port=" + Port(t, FreeAddr(t)), "-serf-lan-port=" + Port(t, gossip[i])}
		if n > 1 {
			started = node.listens // It is ready when the others run too.
			own = append(own, "-retry-interval=1s")
			for j, addr := range gossip {
				if j != i { // It would meet itself, and not try again.
					own = append(own, "-retry-join="+addr)
				}
			}
		}
		node.Server = Start(t, started, program, append(own, args...)...)
	}
	for _, node := range nodes {
		Eventually(t, "Consul makes sessions", node.Ready)
	}
	return nodes
}

// makesSession returns nil once a Consul has a leader, which has registered its node.
func makesSession(url string) error {
	answer, err := ask(Patience, http.MethodPut, url+"/v1/session/create", `{"NodeChecks": [], "TTL": "24h"}`)
	if err != nil {
		return err
	}
	var session struct{ ID string }
	if err := json.Unmarshal(answer, &session); err != nil {
		return err
	}
	_, err = ask(Patience, http.MethodPut, url+"/v1/session/destroy/"+session.ID, "")
	return err
}

// EtcdCluster starts etcd with n members. One is ready if it has a leader.
func EtcdCluster(t testing.TB, n int) []*Node {
	t.Helper()
	program := Find(t, "etcd", "apt-get install etcd-server")
	var members []*Node
	var peers, cluster []string
	for i := range n {
		addr := FreeAddr(t)
		members = append(members, &Node{Addr: addr, Ready: func() error {
			_, err := ask(time.Second, http.MethodGet, "http://"+addr+"/health", "")
			return err
		}})
		peers = append(peers, "http://"+FreeAddr(t))
		cluster = append(cluster, fmt.Sprintf("m%d=%s", i, peers[i]))
	}
	for i, m := range members {
		started := m.Ready
		if n > 1 {
			started = m.listens // It is ready when the others run too.
		}
		m.Server = Start(t, started, program,
			"--name", fmt.Sprintf("m%d", i), "--data-dir", "data", "--log-level", "error",
			"--listen-client-urls", "http://"+m.Addr, "--advertise-client-urls", "http://"+m.Addr,
			"--listen-peer-urls", peers[i], "--initial-advertise-peer-urls", peers[i],
			"--initial-cluster", strings.Join(cluster, ","))
	}
	for _, m := range members {
		Eventually(t, "etcd is healthy", m.Ready)
	}
	return members
}

func (n *Node) listens() error {
	conn, err := net.Dial("tcp", n.Addr)
	if err == nil {
		conn.Close()
	}
	return err
}

// Redis starts a Redis, which forgets everything when it restarts unless args, which
// are its own, say otherwise.
func Redis(t testing.TB, args ...string) *Node {
	t.Helper()
	program := Find(t, "redis-server", "apt-get install redis-server")
	n := &Node{Addr: FreeAddr(t)}
	n.Ready = n.pongs
	n.Server = Start(t, n.Ready, program,
		append([]string{"--bind", "127.0.0.1", "--port", Port(t, n.Addr), "--save", ""}, args...)...)
	return n
}

// pongs returns nil once a Redis has read its data.
func (n *Node) pongs() error {
	conn, err := net.DialTimeout("tcp", n.Addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	const want = "+PONG\r\n"
	answer := make([]byte, len(want))
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	if _, err := io.ReadFull(conn, answer); err != nil {
		return err
	}
	if string(answer) != want {
		return fmt.Errorf("PING: got %q, want %q", answer, want)
	}
	return nil
}

// ask sends an HTTP request, and returns the body of an answer that is 200 OK.
func ask(timeout time.Duration, method, url, body string) (answer []byte, err error) {
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	// A connection that is kept would have goroutines, which tests look for.
	client := http.Client{Timeout: timeout, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}
