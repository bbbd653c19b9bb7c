package dsn

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/lib/pq"
)

type vars = map[string]string

// clearDSNEnv hides the machine's own settings. lib/pq minds variables that are set but empty, so they are removed.
func clearDSNEnv(tb testing.TB) {
	tb.Helper()
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "PG") || slices.Contains(connectionVars, name) {
			tb.Setenv(name, "") // so that it comes back afterwards
			os.Unsetenv(name)
		}
	}
	tb.Setenv("HOME", tb.TempDir()) // .pgpass, .postgresql
}

func setDSNEnv(tb testing.TB, env vars) {
	tb.Helper()
	clearDSNEnv(tb)
	for name, value := range env {
		tb.Setenv(name, value)
	}
}

// readDSN has both drivers read a DSN and checks that they read the same.
func readDSN(t *testing.T, dsn string) (*pgx.ConnConfig, pq.Config) {
	t.Helper()
	x, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatalf("pgx refuses %s: %v", dsn, err)
	}
	if _, err := pq.NewConnector(dsn); err != nil {
		t.Fatalf("lib/pq refuses %s: %v", dsn, err)
	}
	q, err := pq.NewConfig(dsn)
	if err != nil {
		t.Fatalf("lib/pq refuses %s: %v", dsn, err)
	}
	for name := range q.Runtime {
		if !slices.Contains(runTimeParameters, name) {
			t.Errorf("lib/pq sends %s to the server for %s", name, dsn)
		}
	}
	for name, value := range x.RuntimeParams {
		switch {
		case name == "application_name", name == "options", name == "client_encoding":
		case slices.Contains(runTimeParameters, name) && q.Runtime[name] == value:
		default:
			t.Errorf("pgx sends %s to the server for %s", name, dsn)
		}
	}
	// A driver may try a place twice: pgx without TLS, lib/pq when PGHOST is a list.
	var placesX, placesQ []string
	visit := func(places *[]string, host string, port uint16) {
		if place := fmt.Sprintf("%s:%d", host, port); !slices.Contains(*places, place) {
			*places = append(*places, place)
		}
	}
	visit(&placesX, x.Host, x.Port)
	for _, f := range x.Fallbacks {
		visit(&placesX, f.Host, f.Port)
	}
	visit(&placesQ, q.Host, q.Port)
	for _, m := range q.Multi {
		visit(&placesQ, m.Host, m.Port)
	}
	for _, same := range []struct {
		what      string
		inX, inPQ any
	}{
		{"places", fmt.Sprint(placesX), fmt.Sprint(placesQ)},
		{"user", x.User, q.User},
		{"database", x.Database, q.Database},
		{"password", x.Password, q.Password},
		{"application_name", x.RuntimeParams["application_name"], q.ApplicationName},
		{"options", x.RuntimeParams["options"], q.Options},
		{"least protocol", x.MinProtocolVersion, string(q.MinProtocolVersion)},
		{"best protocol", x.MaxProtocolVersion, string(q.MaxProtocolVersion)},
		{"krbsrvname", x.KerberosSrvName, q.KrbSrvname},
		{"krbspn", x.KerberosSpn, q.KrbSpn},
		{"connect_timeout", x.ConnectTimeout, q.ConnectTimeout},
		{"first try in the clear", x.TLSConfig == nil, q.SSLMode == pq.SSLModeDisable || q.SSLMode == pq.SSLModeAllow},
	} {
		if same.inX != same.inPQ {
			t.Errorf("%s of %s: pgx reads %#v, lib/pq %#v", same.what, dsn, same.inX, same.inPQ)
		}
	}
	return x, q
}
