package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

const secret = "s3cr3t-w0rd"

// guarded is a server that wants a password on every connection by TCP.
func guarded(t *testing.T, passwords ...string) *pgserver.Server {
	t.Helper()
	srv, err := pgserver.Start(t.Context(), pgserver.WithSetting("max_connections", "15"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { srv.Stop() })
	admin := openDB(t, srv.SocketURL())
	if _, err := admin.Exec("REVOKE CREATE ON SCHEMA public FROM PUBLIC"); err != nil { // as PostgreSQL 15 and later have it
		t.Fatal(err)
	}
	for i, password := range passwords {
		quoted := "'" + strings.ReplaceAll(password, "'", "''") + "'"
		if strings.Contains(quoted, `\`) {
			quoted = "E" + strings.ReplaceAll(quoted, `\`, `\\`)
		}
		if _, err := admin.Exec(fmt.Sprintf("CREATE ROLE locker%d LOGIN PASSWORD %s", i, quoted)); err != nil {
			t.Fatal(err)
		}
	}
	hba := filepath.Join(srv.Dir(), "data", "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("local all all trust\nhost all all 127.0.0.1/32 scram-sha-256\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := srv.Restart(t.Context(), pgserver.Fast); err != nil {
		t.Fatal(err)
	}
	return srv
}

// place is the environment that names srv and a role, but no password.
func place(t *testing.T, srv *pgserver.Server, role int) []string {
	t.Helper()
	address, err := url.Parse(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	return []string{"PGHOST=127.0.0.1", "PGPORT=" + address.Port(), "PGDATABASE=postgres", "PGSSLMODE=disable",
		fmt.Sprintf("PGUSER=locker%d", role)}
}

// TestOddPasswords: the command gets any of them from the environment.
func TestOddPasswords(t *testing.T) {
	t.Parallel()
	passwords := []string{`a b'c"d\e@f/g:h?i#j%k&l=m`, "%41+", " \t", "\x1b[2J\x07", "пароль 密码🦢", `\`, "'"}
	srv := guarded(t, passwords...)
	for i, password := range passwords {
		p := swanlockCommand(t, append(place(t, srv, i), "PGPASSWORD="+password), "run", "odd password", "--", "true").start().want(0)
		if got := p.stdout.String() + p.stderr.String(); got != "" {
			t.Errorf("%q: swanlock says %q", password, got)
		}
	}
}

// TestSecrets: whatever fails, no password is shown: not on stderr, not in a process's title, not to the server.
func TestSecrets(t *testing.T) {
	t.Parallel()
	srv := guarded(t, secret)
	good := append(place(t, srv, 0), "PGPASSWORD="+secret)
	mark, done := file(t), file(t)
	p := swanlockCommand(t, good, append([]string{"run", "--owner", "me", "secrets"},
		sh(`: >"$1"; while [ ! -e "$2" ]; do sleep 0.02; done`, mark, done)...)...).start()
	eventually(t, "mark", func() bool { return exists(mark) })
	titles, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	seen := false
	for _, title := range titles {
		text, _ := os.ReadFile(title)
		if strings.Contains(string(text), secret) {
			t.Errorf("the password is in the title of a process: %q", text)
		}
		seen = seen || strings.Contains(string(text), mark)
	}
	if !seen && len(titles) > 0 {
		t.Error("the command's title was not among those looked at")
	}
	var activity string
	if err := openDB(t, srv.SocketURL()).QueryRow("SELECT string_agg(concat_ws(' ', usename, application_name, query), E'\n') FROM pg_stat_activity").Scan(&activity); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(activity, secret) || !strings.Contains(activity, "locker0 swanlock") {
		t.Errorf("pg_stat_activity has\n%s", activity)
	}

	for name, tt := range map[string]struct {
		env  []string
		args string
		code int
	}{
		"a wrong password":       {[]string{"PGPASSWORD=" + secret + "!"}, "run", 69},
		"no such role":           {[]string{"PGUSER=nobody-" + "like-that"}, "run", 69},
		"no such database":       {[]string{"PGDATABASE=none"}, "run", 69},
		"nobody listens":         {[]string{"PGPORT=1"}, "run", 69},
		"no such host":           {[]string{"PGHOST=no-such-host.invalid"}, "run", 69},
		"no such socket":         {[]string{"PGHOST=/no/such/folder"}, "run", 69},
		"no TLS there":           {[]string{"PGSSLMODE=require"}, "run", 69},
		"no such certificate":    {[]string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=/no/such/file", "PGPASSWORD=" + secret + "' " + secret}, "run", 78},
		"a bad setting":          {[]string{"PGOPTIONS=-c nonsense=1"}, "run", 69},
		"a bad mode":             {[]string{"PGSSLMODE=" + secret}, "run", 78},
		"a bad port":             {[]string{"PGPORT=" + secret}, "run", 78},
		"a bad string":           {[]string{"PGCONNECTION=host=h password=" + secret + " " + secret}, "run", 78},
		"a bad URL":              {[]string{"PGCONNECTION=postgres://u:" + secret + "@h@/d"}, "run", 78},
		"a bad URL's port":       {[]string{"PGCONNECTION=postgres://u:" + secret + "@h:x" + secret + "/d"}, "run", 78},
		"no audit":               {nil, "run --audit", 78},
		"the lock held":          {nil, "run", 1},
		"migrate, not permitted": {nil, "migrate", 1},
	} {
		args := append(strings.Fields(tt.args), "secrets", "--", "true")
		if tt.args == "migrate" {
			args = []string{"migrate", "up"}
		}
		q := swanlockCommand(t, append(good[:len(good):len(good)], tt.env...), args...).start()
		if code := q.code(); code != tt.code && !(tt.args == "migrate" && code != 0) {
			t.Errorf("%s: exit code %d, want %d; stderr:\n%s", name, code, tt.code, &q.stderr)
		}
		q.says()
		if got := q.stdout.String() + q.stderr.String(); strings.Contains(got, secret) {
			t.Errorf("%s: the password is in %q", name, got)
		}
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	p.want(0)
}

// TestTooManyConnections: what swanlock run says when the server takes no more.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	srv := guarded(t, secret)
	env := append(place(t, srv, 0), "PGPASSWORD="+secret)
	taken := openDB(t, srv.SocketURL("user=locker0"))
	for n := 0; ; n++ {
		if n > 20 {
			t.Fatal("the server takes any number of connections")
		}
		conn, err := taken.Conn(t.Context())
		if err != nil {
			break
		}
		defer conn.Close()
	}
	swanlockCommand(t, env, "run", "too many", "--", "true").start().want(69).says("cannot connect to PostgreSQL", "53300")
}

// TestHostileEnvironment: what comes back from the server, the system and the parsers is as harmless to a terminal as
// what swanlock itself says, and is not SQL.
func TestHostileEnvironment(t *testing.T) {
	t.Parallel()
	address, err := url.Parse(pgserver.Default().URL())
	if err != nil {
		t.Fatal(err)
	}
	db := openDB(t, migrated(t))
	if _, err := db.Exec("CREATE TABLE canary (); INSERT INTO canary DEFAULT VALUES"); err != nil {
		t.Fatal(err)
	}
	good := []string{"PGHOST=127.0.0.1", "PGPORT=" + address.Port(), "PGDATABASE=postgres", "PGUSER=postgres", "PGSSLMODE=disable"}
	for _, text := range []string{"\x1b[2J\x1b]0;t\x07\u202egnp\u2066 \u009b2J a\rb\nc'; DROP TABLE canary; --", "\xff\xfe\x1b"} {
		for _, name := range []string{"PGDATABASE", "PGUSER", "PGHOST", "PGPORT", "PGSSLMODE", "PGOPTIONS", "PGAPPNAME", "PGSSLROOTCERT",
			"PGPASSFILE", "PGSERVICE", "PGCONNECTION", "PGCONNECT_TIMEOUT", "TERM"} {
			p := swanlockCommand(t, append(good[:len(good):len(good)], name+"="+text), "run", "hostile", "--", "true").start()
			p.code()
			harmless(t, name, p)
		}
		for _, args := range [][]string{{text}, {"key", text, text}, {"migrate", text}, {"dev", text}, {"demo", text}, {"help", text}, {"completion", text},
			{"run", "--" + text, "t", "--", "true"}, {"run", "--ttl", text, "t", "--", "true"}, {"run", "-E", text, "t", "--", "true"}, {"run", text}, {demoHolderName, text, text}} {
			p := swanlockCommand(t, good, args...).start()
			if p.code() == 0 {
				t.Errorf("swanlock %q is fine", args)
			}
			harmless(t, fmt.Sprintf("%q", args), p)
		}
	}
	for _, text := range []string{"'; DROP TABLE canary; --", `\'; DROP TABLE canary; --`, "\x1b[2J\u202e\r\n"} {
		target := text + strconv.FormatInt(time.Now().UnixNano(), 10)
		swanlockCommand(t, good, "run", "--audit", "--owner", text, target, "--", "true").start().want(0)
		var owner string
		if err := db.QueryRow("SELECT owner FROM lock_audit WHERE target = $1", target).Scan(&owner); err != nil || owner != text {
			t.Errorf("the audit has owner %q (%v), want %q", owner, err, text)
		}
	}
	var n int
	if err := db.QueryRow("SELECT count(*) FROM canary").Scan(&n); err != nil || n != 1 {
		t.Errorf("the canary: %d rows, %v", n, err)
	}
	if _, err := db.Exec("DROP TABLE canary"); err != nil {
		t.Error(err)
	}
}

func harmless(t *testing.T, what string, p *tested) {
	t.Helper()
	text := p.stdout.String() + p.stderr.String()
	if len(text) > 2000 || strings.ContainsFunc(strings.ReplaceAll(text, "\n", ""), func(r rune) bool { return !unicode.IsPrint(r) }) ||
		strings.Count(text, "\n") > 1 {
		t.Errorf("%s: swanlock says %q", what, text)
	}
}
