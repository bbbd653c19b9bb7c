//go:build unix

package pglock_test

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

var hungUp = regexp.MustCompile(`connection reset|broken pipe|bad connection|EOF$`)

// TestServerClientCertificate: a server that wants to see a certificate, and to have its own believed, is served by
// DSNFromEnv's variables alone.
func TestServerClientCertificate(t *testing.T) {
	srv := ownServer(t)
	data, dir := filepath.Join(srv.Dir(), "data"), t.TempDir()
	ca := (*pgtest.Authority)(nil).Issue(t, data, "ca", "swanlock test CA")
	ca.Issue(t, data, "server", "server")
	ca.Issue(t, dir, "locker", "locker")
	ca.Issue(t, dir, "other", "other")
	stranger := (*pgtest.Authority)(nil).Issue(t, dir, "stranger-ca", "another CA")
	stranger.Issue(t, dir, "stranger", "locker")
	pgtest.Own(t, data, "ca.crt", "server.crt", "server.key")
	trusted := filepath.Join(dir, "trusted.crt")
	ours, err := os.ReadFile(filepath.Join(data, "ca.crt"))
	must(t, err)
	must(t, os.WriteFile(trusted, ours, 0o600))

	admin := openURL(t, "pgx", srv.SocketURL())
	run(t, admin, "CREATE ROLE locker LOGIN")
	for setting, file := range map[string]string{"ssl_ca_file": "ca.crt", "ssl_cert_file": "server.crt", "ssl_key_file": "server.key"} {
		run(t, admin, fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", setting, file))
	}
	run(t, admin, "ALTER SYSTEM SET ssl = on")
	admit(t, srv, "hostssl all all 127.0.0.1/32 cert clientcert=verify-full\n")
	address, err := url.Parse(srv.URL())
	must(t, err)

	for _, c := range []struct {
		name, cert, root, mode string
		refused                string // "": it works
	}{
		{"its own certificate", "locker", trusted, "verify-full", ""},
		{"its own certificate, not looking at the server's", "locker", "", "require", ""},
		{"none", "", trusted, "verify-full", "certificate"},
		{"somebody else's", "other", trusted, "verify-full", "authentication failed"},
		{"one of another authority", "stranger", trusted, "verify-full", "certificate"},
		{"a server of another authority", "locker", filepath.Join(dir, "stranger-ca.crt"), "verify-full", "unknown authority"},
		{"no TLS", "", "", "disable", "no pg_hba.conf entry"},
	} {
		for _, driver := range drivers {
			t.Run(c.name+" "+driver, func(t *testing.T) {
				env := map[string]string{"HOME": dir, "PGHOST": "127.0.0.1", "PGPORT": address.Port(), "PGUSER": "locker",
					"PGDATABASE": "postgres", "PGSSLMODE": c.mode}
				if c.root != "" {
					env["PGSSLROOTCERT"] = c.root
				}
				if c.cert != "" {
					env["PGSSLCERT"], env["PGSSLKEY"] = filepath.Join(dir, c.cert+".crt"), filepath.Join(dir, c.cert+".key")
				}
				err := lockByEnv(t, driver, env)
				// The server may hang up before the client has read why.
				for tries := 0; err != nil && tries < 20 && hungUp.MatchString(err.Error()); tries++ {
					err = lockByEnv(t, driver, env)
				}
				if c.refused == "" {
					must(t, err)
				} else if err == nil || !strings.Contains(err.Error(), c.refused) {
					t.Errorf("got %v, want an error that says %q", err, c.refused)
				}
			})
		}
	}
}

// TestChannelBindingIsTheCertificates: lib/pq cannot bind to the channel, so
// channel_binding=require has both drivers look at the server's certificate.
func TestChannelBindingIsTheCertificates(t *testing.T) {
	srv := ownServer(t)
	data, dir := filepath.Join(srv.Dir(), "data"), t.TempDir()
	ca := (*pgtest.Authority)(nil).Issue(t, data, "ca", "swanlock test CA")
	ca.Issue(t, data, "server", "server")
	(*pgtest.Authority)(nil).Issue(t, dir, "stranger-ca", "another CA")
	pgtest.Own(t, data, "ca.crt", "server.crt", "server.key")
	admin := openURL(t, "pgx", srv.SocketURL())
	run(t, admin, "CREATE ROLE locker LOGIN PASSWORD 'pa55'")
	for setting, value := range map[string]string{"ssl_cert_file": "server.crt", "ssl_key_file": "server.key", "ssl": "on"} {
		run(t, admin, fmt.Sprintf("ALTER SYSTEM SET %s = '%s'", setting, value))
	}
	admit(t, srv, "hostssl all all 127.0.0.1/32 scram-sha-256\n")
	address, err := url.Parse(srv.URL())
	must(t, err)
	place := "postgresql://locker:pa55@127.0.0.1:" + address.Port() + "/postgres?sslmode=prefer"
	for _, driver := range drivers {
		must(t, lockByEnv(t, driver, map[string]string{"HOME": dir, "PGCONNECTION": place}))
		must(t, lockByEnv(t, driver, map[string]string{"HOME": dir, "PGCONNECTION": place + "&channel_binding=require",
			"PGSSLROOTCERT": filepath.Join(data, "ca.crt")}))
		for _, root := range []string{"", filepath.Join(dir, "stranger-ca.crt")} {
			err := lockByEnv(t, driver, map[string]string{"HOME": dir, "PGCONNECTION": place + "&channel_binding=require&sslrootcert=" + root})
			if err == nil || !strings.Contains(err.Error(), "unknown authority") {
				t.Errorf("%s: got %v with a server that nobody vouches for", driver, err)
			}
		}
	}
}
