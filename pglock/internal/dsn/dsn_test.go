package dsn

import (
	"fmt"
	"os"
	"os/user"
	"strings"
	"testing"
)

func TestFromEnv(t *testing.T) {
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
			got, err := FromEnv()
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

func TestFromEnvDefaultsToTheSystemsUser(t *testing.T) {
	setDSNEnv(t, vars{"PGHOST": "db", "USER": "somebody-else"}) // lib/pq alone would believe $USER
	who, err := user.Current()
	if err != nil {
		t.Skip(err)
	}
	dsn, err := FromEnv()
	if err != nil {
		t.Fatal(err)
	}
	if x, _ := readDSN(t, dsn); x.User != who.Username || x.Database != who.Username {
		t.Errorf("got user %q and database %q, want %q", x.User, x.Database, who.Username)
	}
}

func TestFromEnvLeavesAServiceToTheDriver(t *testing.T) {
	file := t.TempDir() + "/services"
	if err := os.WriteFile(file, []byte("[it's]\nhost=db\nsslmode=verify-full\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	setDSNEnv(t, vars{"PGSERVICE": "it's", "PGSERVICEFILE": file, "PGHOST": "not-this", "PGUSER": "u", "PGDATABASE": "d"})
	dsn, err := FromEnv()
	if want := `service='it\'s'`; err != nil || dsn != want {
		t.Fatalf("got %s, %v\nwant %s", dsn, err, want)
	}
	x, _ := readDSN(t, dsn)
	if x.Host != "db" || x.User != "u" {
		t.Errorf("got host %q and user %q, want the service's host and PGUSER", x.Host, x.User)
	}
}

func TestFromEnvCarriesAnyPassword(t *testing.T) {
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
			dsn, err := FromEnv()
			if err != nil {
				t.Fatalf("%q as %s: %v", password, way, err)
			}
			if x, q := readDSN(t, dsn); x.Password != password || q.Password != password {
				t.Errorf("%q as %s: pgx reads %q, lib/pq %q", password, way, x.Password, q.Password)
			}
		}
	}
}
