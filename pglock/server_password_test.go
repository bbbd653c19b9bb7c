package pglock_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

// oddPasswords are hard to write in a connection string. Those that are not ASCII are in the normal form that SCRAM wants
// (RFC 4013): of any other, such as a no-break space or "Ⅸ", the server makes that form and the drivers do not.
var oddPasswords = []string{
	"plain", " ", "a b", " leads and trails ", "'", `"`, `\`, `'\''\\`, `\'`, "%", "%41", "%zz", "@", "p@ss:w/rd?x#y&z=1+2", "=", "+",
	"?", "#", "/", ":", "&", "$HOME `id` $(id)", "\t", "a\nb", "host=x", "' host='x", "postgres://u:p@h/d", "пароль", "密码🦢", "é", "ü%ß",
	strings.Repeat("x'\\ ", 250),
}

// TestServerOddPasswords: any password that PostgreSQL takes gets through DSNFromEnv, in each way to write it.
func TestServerOddPasswords(t *testing.T) {
	srv := ownServer(t)
	admin := openURL(t, "pgx", srv.SocketURL())
	admit(t, srv, "host all all 127.0.0.1/32 scram-sha-256\n")
	address, err := url.Parse(srv.URL())
	must(t, err)
	for i, password := range oddPasswords {
		role := fmt.Sprintf("odd%d", i)
		run(t, admin, fmt.Sprintf("CREATE ROLE %s LOGIN PASSWORD %s", role, one[string](t, admin, "SELECT quote_literal($1::text)", password)))
		var encoded strings.Builder
		for _, b := range []byte(password) {
			fmt.Fprintf(&encoded, "%%%02x", b)
		}
		place := fmt.Sprintf("host=127.0.0.1 port=%s user=%s dbname=postgres sslmode=disable password=", address.Port(), role)
		quoted := "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(password) + "'"
		for _, driver := range drivers {
			for way, env := range map[string]map[string]string{
				"PGPASSWORD": {"PGHOST": "127.0.0.1", "PGPORT": address.Port(), "PGUSER": role, "PGDATABASE": "postgres",
					"PGSSLMODE": "disable", "PGPASSWORD": password},
				"key=value": {"PGCONNECTION": place + quoted},
				"URL": {"SWANLAKE_LOCK_POSTGRES_CONNECTION": fmt.Sprintf("postgres://%s:%s@127.0.0.1:%s/postgres?sslmode=disable",
					role, encoded.String(), address.Port())},
			} {
				if err := lockByEnv(t, driver, env); err != nil {
					t.Errorf("%s, password %q as %s: %v", driver, password, way, err)
				}
			}
			if i == 0 {
				err := lockByEnv(t, driver, map[string]string{"PGCONNECTION": place + "'wrong'"})
				if err == nil || !strings.Contains(err.Error(), "password authentication failed") {
					t.Errorf("%s: got %v with a wrong password", driver, err)
				}
			}
		}
	}
}
