package pglock_test

import (
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// hostileTexts would do something if anything but a parameter of a statement were made of them.
var hostileTexts = []string{
	"'; DROP TABLE canary; --", `\'; DROP TABLE canary; --`, "'); DROP TABLE canary; --", "' || (SELECT 1/0) || '", "$1", "$$; DROP TABLE canary; $$",
	"/* */ ' -- \n; DROP TABLE canary", "E'\\x27; DROP TABLE canary'", "%s%d%!v", "\x1b[2J\x1b]0;title\x07", "\u202egnp\u2066", "\r\n", `"`, "`", "\u2019", "ʼ", "𝔘\U0010ffff",
	strings.Repeat("'", 1000), strings.Repeat("/", 1000), strings.Repeat("☃", 400_000), // a megabyte
}

// canary makes a table that a statement made of hostileTexts would drop.
func canary(t testing.TB, o observer) (alive func()) {
	t.Helper()
	run(t, o.db, "CREATE TABLE canary (x int)")
	run(t, o.db, "INSERT INTO canary VALUES (42)")
	return func() {
		t.Helper()
		if got := one[int](t, o.db, "SELECT x FROM canary"); got != 42 {
			t.Errorf("the canary says %d", got)
		}
	}
}

// wantStored takes a lock with an audit, and checks that its row has the very bytes of target and owner.
func wantStored(t testing.TB, o observer, l swanlock.Locker, target, owner string, opts ...swanlock.Option) {
	t.Helper()
	held, err := l.TryAcquire(bg, target, append(opts, swanlock.WithOwner(owner))...)
	if err != nil {
		t.Errorf("target %.40q, owner %.40q: %v", target, owner, err)
		return
	}
	must(t, held.Refresh(bg))
	must(t, held.Release(bg))
	var gotTarget, gotOwner, reason string
	must(t, o.db.QueryRowContext(bg, "SELECT target, owner, end_reason FROM lock_audit WHERE key = $1::bigint ORDER BY id DESC LIMIT 1",
		int64(pglock.KeyOf(target))).Scan(&gotTarget, &gotOwner, &reason))
	if gotTarget != target || gotOwner != owner || reason != "released" {
		t.Errorf("the audit has target %.40q, owner %.40q, %s; want %.40q, %.40q, released", gotTarget, gotOwner, reason, target, owner)
	}
}

// TestTargetsAreNeverSQL: whatever a user names things, in every mode of the drivers: the simple protocol writes the values into
// the statement itself.
func TestTargetsAreNeverSQL(t *testing.T) {
	t.Parallel()
	for _, driver := range everyMode {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			dbname, o := auditDatabase(t)
			alive := canary(t, o)
			s := pglock.NewSession(dial(t, driver, dbname), pglock.WithAudit())
			// A backslash means something in this session's strings.
			odd := pglock.NewSession(dial(t, driver, dbname, "options=-c%20standard_conforming_strings%3Doff%20-c%20backslash_quote%3Don"),
				pglock.WithAudit())
			for i, text := range hostileTexts {
				wantStored(t, o, s, text, hostileTexts[len(hostileTexts)-1-i], swanlock.WithTTL(time.Minute))
				wantStored(t, o, s, text, "owner", swanlock.WithShared())
				if _, err := s.TryAcquire(bg, text+"\x00"); err == nil {
					t.Errorf("%.40q with a zero byte is taken", text)
				}
				if _, err := s.TryAcquire(bg, "target", swanlock.WithOwner(text+"\xff")); err == nil {
					t.Error("an owner that is no UTF-8 is taken")
				}
				if driver != "pgx-simple" {
					wantStored(t, o, odd, text, text)
				} else if _, err := odd.TryAcquire(bg, text, swanlock.WithOwner(text)); err != nil { // the driver refuses
					o.wantHeld(text)
				}
			}
			alive()
		})
	}
}

// TestServerNamesAreNeverSQL: names of the connection are no SQL either.
func TestServerNamesAreNeverSQL(t *testing.T) {
	dbname := newDatabase(t)
	o := observe(t, dbname)
	alive := canary(t, o)
	address, err := url.Parse(server(t).URL())
	must(t, err)
	for _, text := range hostileTexts {
		if len(text) > 5000 || strings.ContainsRune(text, 0) {
			continue
		}
		for _, driver := range drivers {
			env := map[string]string{"PGHOST": "127.0.0.1", "PGPORT": address.Port(), "PGUSER": "postgres", "PGSSLMODE": "disable",
				"PGDATABASE": strings.TrimPrefix(dbname, "dbname="), "PGAPPNAME": text}
			if err := lockByEnv(t, driver, env); err != nil {
				t.Errorf("%s, application name %q: %v", driver, text, err)
			}
			for name, value := range map[string]string{"PGDATABASE": text, "PGUSER": text, "PGOPTIONS": "-c search_path=" + text} {
				bad := map[string]string{}
				for k, v := range env {
					bad[k] = v
				}
				bad[name] = value
				lockByEnv(t, driver, bad) // most are refused
			}
		}
	}
	alive()
}

// FuzzTarget: any target and owner is stored as it is, or refused before anything is sent, in an error of one line.
func FuzzTarget(f *testing.F) {
	for i, text := range hostileTexts {
		if len(text) < 5000 {
			f.Add(text, hostileTexts[len(hostileTexts)-1-i][:1])
			f.Add("t", text)
		}
	}
	f.Add("\xff", "x")
	f.Add("x\x00", "\xc3\x28")
	f.Add("", "")
	o, sessions := observe(f), map[string]*pglock.Session{}
	for _, driver := range everyMode {
		sessions[driver], _ = newSession(f, driver, pglock.WithAudit())
	}
	f.Fuzz(func(t *testing.T, target, owner string) {
		valid := target != "" && utf8.ValidString(target+owner) && !strings.ContainsRune(target+owner, 0)
		for _, driver := range everyMode {
			if owner == "" {
				owner = "somebody"
			}
			if valid {
				wantStored(t, o.in(t), sessions[driver], target, owner)
				continue
			}
			_, err := sessions[driver].TryAcquire(bg, target, swanlock.WithOwner(owner))
			if err == nil {
				t.Fatalf("target %q, owner %q is taken", target, owner)
			}
			if strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) || len(err.Error()) > 1000 {
				t.Errorf("%q does something to a terminal", err)
			}
		}
	})
}

// TestErrorsAreSafeToPrint: neither an error nor the log does anything to a terminal, or shows a password, whatever fails.
func TestErrorsAreSafeToPrint(t *testing.T) {
	const secret = "s3cr3t-w0rd"
	srv := ownServer(t)
	admin := openURL(t, "pgx", srv.SocketURL())
	run(t, admin, "CREATE ROLE locker LOGIN PASSWORD 's3cr3t-w0rd'")
	admit(t, srv, "host all locker 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")
	address, err := url.Parse(srv.URL())
	must(t, err)
	var said []string
	for _, driver := range drivers {
		env := map[string]string{"PGHOST": "127.0.0.1", "PGPORT": address.Port(), "PGUSER": "locker", "PGDATABASE": "postgres",
			"PGSSLMODE": "disable", "PGPASSWORD": secret}
		if err := lockByEnv(t, driver, env); err != nil {
			t.Fatalf("%s: the password does not work: %v", driver, err)
		}
		for _, bad := range []map[string]string{
			{"PGPASSWORD": secret + "!"}, {"PGPASSWORD": secret + "' x"}, {"PGUSER": "nobody-like-that"}, {"PGDATABASE": "none"},
			{"PGPORT": "1"}, {"PGHOST": "/no/such/folder"}, {"PGHOST": "no-such-host.invalid"}, {"PGSSLMODE": "require"},
			{"PGSSLMODE": "verify-full"}, {"PGSSLMODE": "verify-ca", "PGSSLROOTCERT": "/dev/null"}, {"PGSSLROOTCERT": "/no/such/file", "PGSSLMODE": "verify-full"},
			{"PGOPTIONS": "-c nonsense=1"}, {"PGOPTIONS": "-c default_transaction_read_only=\x1b[2J"}, {"PGTARGETSESSIONATTRS": "standby"},
		} {
			with := map[string]string{"PGCONNECT_TIMEOUT": "5"}
			for _, vars := range []map[string]string{env, bad} {
				for name, value := range vars {
					with[name] = value
				}
			}
			err := lockByEnv(t, driver, with)
			if err == nil {
				t.Errorf("%s: %q did not fail", driver, bad)
				continue
			}
			said = append(said, err.Error())
		}
		log := &logged{}
		dsn := "host=127.0.0.1 port=" + address.Port() + " user=locker dbname=postgres sslmode=disable password=" + secret
		conn := connOf(t, openURL(t, driver, dsn))
		s := pglock.NewSession(conn, pglock.WithAudit(), pglock.WithLogger(slog.New(slog.NewTextHandler(log, nil))))
		hostile := "\x1b[2J\u202e" + strings.Repeat("x", 1<<20)
		_, err := s.TryAcquire(bg, hostile, swanlock.WithOwner(hostile)) // the role may not write the audit
		wantIs(t, err, pglock.ErrAudit)
		held := acquired(t, pglock.NewSession(conn, pglock.WithLogger(slog.New(slog.NewTextHandler(log, nil)))), hostile,
			swanlock.WithTTL(150*time.Millisecond), swanlock.WithAutoRefresh())
		one[bool](t, admin, "SELECT pg_terminate_backend($1::int)", held.BackendPID())
		lost := ended(t, held)
		wantIs(t, lost, swanlock.ErrLost)
		eventually(t, "the log has it", func() bool { return log.String() != "" || errors.Is(lost, swanlock.ErrExpired) })
		said = append(said, err.Error(), lost.Error(), held.Release(bg).Error(), strings.TrimSpace(log.String()))
	}
	said = append(said, one[string](t, admin, "SELECT string_agg(application_name || query, ' ') FROM pg_stat_activity"))
	for _, text := range said {
		if strings.Contains(text, secret) {
			t.Errorf("a password is in %q", text)
		}
	}
	for _, text := range slices.DeleteFunc(said, func(text string) bool { return !strings.Contains(text, "pglock: ") }) {
		if len(text) > 3000 || strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }) {
			t.Errorf("%d bytes do something to a terminal: %.200q", len(text), text)
		}
	}
}
