package pglock

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/user"
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
	if len(q.Runtime) > 0 {
		t.Errorf("lib/pq sends %v to the server for %s", q.Runtime, dsn)
	}
	for name := range x.RuntimeParams {
		if name != "application_name" && name != "options" {
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
		{"connect_timeout", x.ConnectTimeout, q.ConnectTimeout},
		{"first try in the clear", x.TLSConfig == nil, q.SSLMode == pq.SSLModeDisable || q.SSLMode == pq.SSLModeAllow},
	} {
		if same.inX != same.inPQ {
			t.Errorf("%s of %s: pgx reads %#v, lib/pq %#v", same.what, dsn, same.inX, same.inPQ)
		}
	}
	return x, q
}

func TestDSNFromEnv(t *testing.T) {
	const swanlake, pgconnection = "SWANLAKE_LOCK_POSTGRES_CONNECTION", "PGCONNECTION"
	const plain = "host='db' port='5432' user='u' dbname='d' sslmode='prefer'"
	for _, tc := range []struct {
		name string
		env  vars
		want string
	}{
		{"the seed's connection string",
			vars{swanlake: "host=localhost port=5432 user=postgres dbname=swanlake password=secret"},
			"host='localhost' port='5432' user='postgres' dbname='swanlake' password='secret' sslmode='prefer'"},
		{"the seed's variables",
			vars{"PGHOST": "localhost", "PGPORT": "5432", "PGUSER": "postgres", "PGDATABASE": "swanlake", "PGPASSWORD": "secret"},
			"host='localhost' port='5432' user='postgres' dbname='swanlake' password='secret' sslmode='prefer'"},
		{"SwanLake's variable first",
			vars{swanlake: "host=db user=u dbname=d", pgconnection: "host=other", "PGHOST": "third"},
			plain},
		{"then PGCONNECTION", vars{swanlake: "", pgconnection: "host=db user=u dbname=d", "PGHOST": "third"}, plain},
		{"then the PG variables",
			vars{swanlake: "", pgconnection: "", "PGHOST": "db", "PGUSER": "u", "PGDATABASE": "d"},
			plain},
		{"PG variables fill in a connection string",
			vars{swanlake: "host=db", "PGUSER": "u", "PGDATABASE": "d", "PGSSLMODE": "require"},
			"host='db' port='5432' user='u' dbname='d' sslmode='require'"},
		{"a connection string overrides every PG variable",
			vars{swanlake: "host=db port=1 user=u dbname=d password=p passfile=f sslmode=disable " +
				"connect_timeout=9 application_name=a options=o target_session_attrs=any",
				"PGHOST": "h", "PGPORT": "2",
				"PGUSER": "x", "PGDATABASE": "x", "PGPASSWORD": "x", "PGPASSFILE": "x", "PGSSLMODE": "require",
				"PGCONNECT_TIMEOUT": "5", "PGAPPNAME": "x", "PGOPTIONS": "x", "PGTARGETSESSIONATTRS": "standby"},
			"host='db' port='1' user='u' dbname='d' password='p' passfile='f' sslmode='disable' " +
				"connect_timeout='9' application_name='a' options='o' target_session_attrs='any'"},
		{"the other PG variables",
			vars{"PGHOST": "db", "PGUSER": "u", "PGPASSFILE": "f", "PGSSLMODE": "require",
				"PGSSLNEGOTIATION": "direct", "PGSSLSNI": "0", "PGCONNECT_TIMEOUT": "5",
				"PGAPPNAME": "a b", "PGOPTIONS": "-c search_path=x", "PGTARGETSESSIONATTRS": "primary"},
			"host='db' port='5432' user='u' dbname='u' passfile='f' sslmode='require' sslnegotiation='direct' " +
				"sslsni='0' connect_timeout='5' application_name='a b' options='-c search_path=x' target_session_attrs='primary'"},
		{"dbname defaults to user",
			vars{swanlake: "host=db user=u"},
			"host='db' port='5432' user='u' dbname='u' sslmode='prefer'"},
		{"host defaults to localhost",
			vars{"PGUSER": "u"},
			"host='localhost' port='5432' user='u' dbname='u' sslmode='prefer'"},
		{"empty settings count as not given",
			vars{swanlake: "host='' user=u dbname='' port=", "PGHOST": "db", "PGDATABASE": "d"},
			plain},
		{"the last of a key wins", vars{swanlake: "host=x host=db user=u dbname=d"}, plain},
		{"blanks, quotes and escapes",
			vars{swanlake: "\n host = 'db'user=u\tdbname='d' password=\\ a\\'b\\\\c'd application_name='\\'x\\\\' \r\n"},
			`host='db' port='5432' user='u' dbname='d' password=' a\'b\\c\'d' sslmode='prefer' application_name='\'x\\'`},
		{"a bare value may hold =", vars{swanlake: "host=db user=u dbname=d password=YWJj=="},
			"host='db' port='5432' user='u' dbname='d' password='YWJj==' sslmode='prefer'"},
		{"a socket", vars{"PGHOST": "/var/run/postgresql", "PGUSER": "u"},
			"host='/var/run/postgresql' port='5432' user='u' dbname='u' sslmode='prefer'"},
		{"a list of hosts",
			vars{swanlake: "host=a,,c port=1,,3 user=u"},
			"host='a,localhost,c' port='1,5432,3' user='u' dbname='u' sslmode='prefer'"},
		{"one port for a list of hosts",
			vars{swanlake: "host=a,b port=7 user=u"},
			"host='a,b' port='7' user='u' dbname='u' sslmode='prefer'"},
		{"a list in the PG variables",
			vars{"PGHOST": "a,b,c", "PGPORT": "1,2,3", "PGUSER": "u"},
			"host='a,b,c' port='1,2,3' user='u' dbname='u' sslmode='prefer'"},
		{"PGHOSTADDR",
			vars{"PGHOSTADDR": "::1", "PGUSER": "u"},
			"host='::1' port='5432' user='u' dbname='u' sslmode='prefer'"},
		{"a URL", vars{swanlake: "postgres://u:p@db:77/d?sslmode=disable&application_name=a+b"},
			"host='db' port='77' user='u' dbname='d' password='p' sslmode='disable' application_name='a+b'"},
		{"a URL with percent signs", vars{swanlake: "\tpostgresql://u%40x:%20%27%5C%2f%25%C3%A9@db/d%3F?options=-c%20a%3Db\n"},
			`host='db' port='5432' user='u@x' dbname='d?' password=' \'\\/%é' sslmode='prefer' options='-c a=b'`},
		{"a URL with a lone ? # or : in the password", vars{swanlake: "postgres://u:a?b#c:d'e\\@db/d"},
			`host='db' port='5432' user='u' dbname='d' password='a?b#c:d\'e\\' sslmode='prefer'`},
		{"a URL with a list of hosts",
			vars{swanlake: "postgres://u@a:1,b,[::1]:3/d"},
			"host='a,b,::1' port='1,5432,3' user='u' dbname='d' sslmode='prefer'"},
		{"a URL with a socket",
			vars{swanlake: "postgres://u@%2Fvar%2Frun/d"},
			"host='/var/run' port='5432' user='u' dbname='d' sslmode='prefer'"},
		{"a URL with everything in its parameters",
			vars{swanlake: "postgres:///?host=/tmp&user=u&password=p&port=6&dbname=d&ssl=true"},
			"host='/tmp' port='6' user='u' dbname='d' password='p' sslmode='require'"},
		{"only one scheme", vars{swanlake: "postgres://postgresql://d", "PGUSER": "u"},
			"host='postgresql' port='5432' user='u' dbname='/d' sslmode='prefer'"},
		{"a URL whose host the PG variables tell", vars{swanlake: "postgres://u@/d", "PGHOST": "db", "PGPORT": "9"},
			"host='db' port='9' user='u' dbname='d' sslmode='prefer'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			setDSNEnv(t, tc.env)
			got, err := DSNFromEnv()
			if err != nil || got != tc.want {
				t.Fatalf("got %s, %v\nwant %s", got, err, tc.want)
			}
			for name, value := range tc.env {
				if value == "" {
					os.Unsetenv(name)
				}
			}
			readDSN(t, got)
		})
	}
}

func TestDSNFromEnvDefaultsToTheSystemsUser(t *testing.T) {
	setDSNEnv(t, vars{"PGHOST": "db", "USER": "somebody-else"}) // lib/pq alone would believe $USER
	who, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	dsn, err := DSNFromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if x, _ := readDSN(t, dsn); x.User != who.Username || x.Database != who.Username {
		t.Errorf("got user %q and database %q, want %q", x.User, x.Database, who.Username)
	}
}

func TestDSNFromEnvSaysWhenNothingIsSet(t *testing.T) {
	for _, env := range []vars{
		nil,
		{"PGHOST": "", "SWANLAKE_LOCK_POSTGRES_CONNECTION": "", "PGCONNECTION": ""},
		{"PGSSLMODE": "disable", "PGPASSFILE": "f", "PGAPPNAME": "a"}, // say nothing of where
	} {
		setDSNEnv(t, env)
		if dsn, err := DSNFromEnv(); !errors.Is(err, ErrNoDSN) || dsn != "" {
			t.Errorf("%v: got %q, %v", env, dsn, err)
		}
	}
	for _, name := range placeVars {
		setDSNEnv(t, vars{name: "1"})
		if _, err := DSNFromEnv(); errors.Is(err, ErrNoDSN) {
			t.Errorf("%s is set: got %v", name, err)
		}
	}
	for _, name := range append([]string{"PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD"}, connectionVars...) {
		if !strings.Contains(ErrNoDSN.Error(), name) {
			t.Errorf("%q does not name %s", ErrNoDSN, name)
		}
	}
}

func TestDSNFromEnvNamesTheBadVariableAndNotItsValue(t *testing.T) {
	const v, secret = "SWANLAKE_LOCK_POSTGRES_CONNECTION", "hunter2"
	for _, tc := range []struct {
		env  vars
		want string // after "pglock: "
	}{
		{vars{v: "hunter2"}, v + ": is neither"},
		{vars{v: "mysql://u:hunter2@h/d"}, v + ": is neither"},
		{vars{v: "mysql://u:hunter2@h/d?a=b"}, v + ": the setting after the start"},
		{vars{"PGCONNECTION": " \n"}, "PGCONNECTION: holds no setting"},
		{vars{v: "postgres://:@/"}, v + ": holds no setting"},
		{vars{v: "host=db password=my hunter2 user=u"}, v + ": has a key without ="},
		{vars{v: "host=db password=my hunter2=x user=u"}, v + ": the setting after password"},
		{vars{v: "host=db =hunter2"}, v + ": the setting after host"},
		{vars{v: "password='hunter2"}, v + ": has a single quote"},
		{vars{v: `password='hunter2\'`}, v + ": has a single quote"},
		{vars{v: `password=hunter2\`}, v + ": ends in a backslash"},
		{vars{v: `password='hunter2\`}, v + ": ends in a backslash"},
		{vars{v: "password= host=hunter2"}, v + ": has a blank"},
		{vars{v: "database=hunter2"}, v + ": the setting after the start"},
		{vars{v: "host=db search_path=hunter2"}, v + ": the setting after host"},
		{vars{v: "host=db hostaddr=127.0.0.1"}, v + ": hostaddr is not"},
		{vars{v: "service=hunter2"}, v + ": service means"},
		{vars{v: "host=h port=hunter2"}, v + ": port: must be a number from 1"},
		{vars{v: "host=h port=0"}, v + ": port: must be a number from 1"},
		{vars{v: "host=h port=65536"}, v + ": port: must be a number from 1"},
		{vars{v: "host=h port=1,2"}, v + ": port: lists 2 ports for 1 hosts"},
		{vars{v: "host=a,b,c port=1,2"}, v + ": port: lists 2 ports for 3 hosts"},
		{vars{v: "host=@hunter2"}, v + ": host: an abstract socket"},
		{vars{v: "host=/tmp,hunter2"}, v + ": host: a list cannot"},
		{vars{v: "host=h sslmode=hunter2"}, v + ": sslmode: must be one of disable,"},
		{vars{v: "host=h connect_timeout=-1"}, v + ": connect_timeout: must be"},
		{vars{v: "host=h connect_timeout=2147483648"}, v + ": connect_timeout: must be"},
		{vars{v: "host=h target_session_attrs=hunter2"}, v + ": target_session_attrs: must be one of any,"},
		{vars{v: "host=h sslmode=prefer sslnegotiation=direct"},
			v + ": sslmode: must be require at least, because of " + v + ": sslnegotiation"},
		{vars{v: "host=h sslmode=require", "PGSSLROOTCERT": "system"},
			v + ": sslmode: must be verify-full at least, because of PGSSLROOTCERT"},
		{vars{v: "host=/tmp sslrootcert=system"}, v + ": sslrootcert: asks for TLS"},
		{vars{v: "password=hunter2\xff"}, v + ": password: must be UTF-8"},
		{vars{v: "postgres://u:hunter2%FF@h"}, v + ": password: must be UTF-8"},
		{vars{v: "postgres://u:hunter2%00@h"}, v + ": password: must be UTF-8"},
		{vars{v: "postgres://u:hunter2%zz@h"}, v + ": has a % without"},
		{vars{v: "postgres://u:hunter2@x@h/d"}, v + ": holds an @ too many"},
		{vars{v: "postgres://u:hunter2/x@h/d"}, v + ": holds an @ too many"},
		{vars{v: "postgres://u:hunter2 x@h/d"}, v + ": holds a blank"},
		{vars{v: "postgres://u:hunter2@[::1/d"}, v + ": has an IPv6 address"},
		{vars{v: "postgres://u:hunter2@[]/d"}, v + ": has an IPv6 address"},
		{vars{v: "host=h\xff"}, v + ": host: must be UTF-8"},
		{vars{v: "postgres://u:hunter2@[::1]5/d"}, v + ": has an IPv6 address"},
		{vars{v: "postgres://u:hunter2@h/d?hunter2"}, v + ": has a parameter"},
		{vars{v: "postgres://u@h/d?password=hunter2=x"}, v + ": has a parameter"},
		{vars{v: "postgres://u@h/d?hunter2=x"}, v + ": the setting after dbname"},
		{vars{v: "postgres://u:hunter2@h:p/d"}, v + ": port: must be a number"},
		{vars{"PGPORT": "hunter2"}, "PGPORT: must be a number"},
		{vars{"PGHOST": "a,b", "PGPORT": "1,2,3"}, "PGPORT: lists 3 ports for 2 hosts"},
		{vars{"PGHOST": "h", "PGSSLMODE": "hunter2"}, "PGSSLMODE: must be one of"},
		{vars{"PGPASSWORD": "hunter2\xff"}, "PGPASSWORD: must be UTF-8"},
		// What the drivers read differently: each would connect somewhere else.
		{vars{"PGHOSTADDR": "10.0.0.1", "PGHOST": "hunter2"}, "PGHOSTADDR: cannot be combined with PGHOST:"},
		{vars{"PGHOSTADDR": "10.0.0.1", v: "host=hunter2"}, "PGHOSTADDR: cannot be combined with " + v + ": host:"},
		{vars{"PGHOSTADDR": "10.0.0.1", "PGSERVICE": "s"}, "PGHOSTADDR: cannot be combined with PGSERVICE:"},
		{vars{"PGHOSTADDR": "10.0.0.1,10.0.0.2"}, "PGHOSTADDR: must be one IP"},
		{vars{"PGHOSTADDR": "hunter2"}, "PGHOSTADDR: must be one IP"},
		{vars{"PGSERVICE": "s", v: "host=h"}, "PGSERVICE: cannot be combined with " + v + ":"},
		{vars{"PGHOST": "a,b", v: "host=h"}, "PGHOST: a list cannot be combined with " + v + ":"},
		{vars{"PGPORT": "1,2", "PGCONNECTION": "host=a,b"}, "PGPORT: a list cannot be combined with PGCONNECTION:"},
		{vars{"PGHOST": "a,b", "PGSERVICE": "s"}, "PGHOST: a list cannot be combined with PGSERVICE:"},
	} {
		setDSNEnv(t, tc.env)
		dsn, err := DSNFromEnv()
		switch {
		case err == nil:
			t.Errorf("%q is accepted: %s", tc.env, dsn)
		case !strings.HasPrefix(err.Error(), "pglock: "+tc.want), strings.Contains(err.Error(), secret),
			dsn != "", errors.Is(err, ErrNoDSN):
			t.Errorf("%q: got %q, %v\nwant %s", tc.env, dsn, err, tc.want)
		}
	}
}

func TestDSNFromEnvLeavesAServiceToTheDriver(t *testing.T) {
	file := t.TempDir() + "/services"
	if err := os.WriteFile(file, []byte("[it's]\nhost=db\nsslmode=verify-full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	setDSNEnv(t, vars{"PGSERVICE": "it's", "PGSERVICEFILE": file, "PGHOST": "not-this", "PGUSER": "u", "PGDATABASE": "d"})
	dsn, err := DSNFromEnv()
	if want := `service='it\'s'`; err != nil || dsn != want {
		t.Fatalf("got %s, %v\nwant %s", dsn, err, want)
	}
	x, _ := readDSN(t, dsn)
	if x.Host != "db" || x.User != "u" {
		t.Errorf("got host %q and user %q, want the service's host and PGUSER", x.Host, x.User)
	}
}

func TestDSNFromEnvCarriesAnyPassword(t *testing.T) {
	passwords := []string{" ", "a b", "'", `\`, `'\''\\`, `\'`, "%", "%41", "%zz", "@", "p@ss:w/rd", "a=b",
		"?x=y&z#", "=", "+", "\t", "a\nb\r", "\u00a0", "a\u2003b\u0085c", "пароль", "密码🦢", "\u0301",
		"host=x", "' host='x", "\x01\x7f", strings.Repeat("x'\\ ", 999)}
	for _, password := range passwords {
		var encoded strings.Builder
		for _, b := range []byte(password) {
			fmt.Fprintf(&encoded, "%%%02x", b)
		}
		for way, env := range map[string]vars{
			"PGPASSWORD": {"PGPASSWORD": password},
			"key=value":  {"PGCONNECTION": "password=" + quoted(password) + " host=h"},
			"URL":        {"PGCONNECTION": "postgres://u:" + encoded.String() + "@h/d"},
			"parameter":  {"PGCONNECTION": "postgres://h/d?password=" + encoded.String()},
		} {
			setDSNEnv(t, env)
			dsn, err := DSNFromEnv()
			if err != nil {
				t.Fatalf("%q as %s: %v", password, way, err)
			}
			if x, q := readDSN(t, dsn); x.Password != password || q.Password != password {
				t.Errorf("%q as %s: pgx reads %q, lib/pq %q", password, way, x.Password, q.Password)
			}
		}
	}
}

func FuzzDSN(f *testing.F) {
	clearDSNEnv(f)
	for _, seed := range [][2]string{
		{"host=localhost port=5432 user=postgres dbname=swanlake password=", ""},
		{"host=a,b port=1,2 password='", "' sslmode=require connect_timeout=3"},
		{"postgres://u:", "@h:1,[::1]:2/d?sslmode=disable&options=-c%20a%3Db"},
		{"postgresql://%2Ftmp/", "?host=/x&ssl=true"}, {"", "=x"}, {"password=x ", "=x"}, {"port=", " host=x"},
		{"user=a\\ b password=\\'", "\xff\x00"}, {"postgres://u:%", "@h"}, {"postgres://postgresql://", "\f"},
		{"sslmode=", ""}, {"sslrootcert=system password=", ""},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, before, after string) {
		for _, secret := range []string{"hunter2", "hunter2'\\ %@/:=?hunter2"} {
			text := before + secret + after
			dsn, err := dsnFrom(func(name string) string {
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
			if got.User != want.User || got.Password != want.Password || got.Database != want.Database || got.Host != want.Host ||
				got.Port != want.Port || !maps.Equal(got.RuntimeParams, want.RuntimeParams) {
				t.Errorf("pgx reads %q as\n%q, and our %s as\n%q", text, want.ConnString(), dsn, got.ConnString())
			}
		}
	})
}
