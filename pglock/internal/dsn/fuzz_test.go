package dsn

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func FuzzDSN(f *testing.F) {
	clearDSNEnv(f)
	for _, seed := range [][2]string{
		{"host=localhost port=5432 user=postgres dbname=swanlake password=", ""},
		{"host=a,b port=1,2 password='", "' sslmode=require connect_timeout=3"},
		{"postgres://u:", "@h:1,[::1]:2/d?sslmode=disable&options=-c%20a%3Db"},
		{"postgresql://%2Ftmp/", "?host=/x&ssl=true"}, {"", "=x"}, {"password=x ", "=x"}, {"port=", " host=x"},
		{"user=a\\ b password=\\'", "\xff\x00"}, {"postgres://u:%", "@h"}, {"postgres://postgresql://", "\f"},
		{"channel_binding=require search_path=", " TimeZone=UTC keepalives=1"},
		{"sslcrl=", " sslpassword=x"}, {"sslmode=", ""}, {"sslrootcert=system password=", ""}, {"seArCh_pAth=", " TimeZone="},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, secret := range []string{"hunter2", "hunter2'\\ %@/:=?hunter2"} {
			text := before + secret + after
			dsn, err := fromVars(func(name string) string {
				return vars{"PGCONNECTION": text}[name]
			})
			if err != nil {
				message := err.Error()
				if strings.Contains(message, "hunter2") || !strings.HasPrefix(message, "pglock: PGCONNECTION: ") {
					t.Fatalf("%q: %v", text, err)
				}
				continue
			}
			if slices.ContainsFunc([]string{"sslcert", "sslkey", "sslrootcert"}, func(key string) bool {
				return strings.Contains(dsn, " "+key+"='")
			}) {
				continue // pgx opens the files
			}
			got, _ := readDSN(t, dsn)
			// pgx says that it reads a connection string exactly as libpq does, but for "user=a user=". We also take
			// the blanks off a URL's ends.
			if url := strings.Trim(text, space); strings.HasPrefix(url, "postgres") {
				text = url
			}
			want, err := pgx.ParseConfig(text)
			if err != nil || strings.Count(text, "user") > 1 {
				continue
			}
			want.Database = cmp.Or(want.Database, want.User)
			if want.Host == "/var/run/postgresql" || want.Host == "/tmp" { // what pgx takes for the default
				want.Host = got.Host
			}
			for name, value := range maps.Clone(want.RuntimeParams) {
				// These are left out or written anew. An empty one counts as unset.
				if _, ok := findExtra(name); ok || name == "client_encoding" || value == "" {
					delete(want.RuntimeParams, name)
				} else if lower := strings.ToLower(name); lower != name {
					delete(want.RuntimeParams, name)
					want.RuntimeParams[lower] = value
				}
			}
			delete(got.RuntimeParams, "client_encoding")
			if strings.Contains(text, "fallback_application_name") {
				want.RuntimeParams["application_name"] = got.RuntimeParams["application_name"]
			}
			if got.User != want.User || got.Password != want.Password || got.Database != want.Database || got.Host != want.Host ||
				got.Port != want.Port || !maps.Equal(got.RuntimeParams, want.RuntimeParams) {
				t.Errorf("pgx reads %q as\n%q, and our %s as\n%q", text, want.ConnString(), dsn, got.ConnString())
			}
		}
	})
}
