package pginspect_test

import (
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pginspect"
)

// finding returns what Check found about a subject, the worst first.
func finding(r pginspect.Report, subject string) (found pginspect.Finding) {
	rank := map[pginspect.Level]int{"": 0, pginspect.OK: 1, pginspect.Note: 2, pginspect.Warning: 3, pginspect.Failure: 4}
	for _, f := range r.Findings {
		if f.Subject == subject && rank[f.Level] > rank[found.Level] {
			found = f
		}
	}
	return found
}

// TestCheck: each fault that a server, database or role may have is found, and
// the statement that mends it does so.
func TestCheck(t *testing.T) {
	// One after the other, since the settings of a role are the whole server's.
	oneDriver(t, func(t *testing.T, driver string) {
		name := newDatabase(t)
		admin := connect(t, driver, name)
		check := func(role string) pginspect.Report {
			t.Helper()
			r, err := pginspect.Check(bg, connect(t, driver, name, role))
			must(t, err)
			for _, f := range r.Findings {
				if f.Is == "" || f.Why == "" || (f.Fix == "") != (f.Level == pginspect.OK) {
					t.Errorf("%+v", f)
				}
			}
			return r
		}
		role := newRole(t)
		t.Cleanup(func() { exec(t, admin, "DROP OWNED BY "+role) })
		for _, tt := range []struct {
			subject, is string
			level       pginspect.Level
			breaks      string
		}{
			{"timeouts", "statement_timeout is 4s, by database " + name, pginspect.Warning, "ALTER DATABASE " + name + " SET statement_timeout = '4s'"},
			{"timeouts", "lock_timeout is 5ms, by role " + role, pginspect.Warning, "ALTER ROLE " + role + " SET lock_timeout = 5"},
			{"timeouts", "idle_session_timeout is 10m0s, by role " + role + " in database " + name, pginspect.Warning, "ALTER ROLE " + role + " IN DATABASE " + name + " SET idle_session_timeout = '10min'"},
			{"timeouts", "idle_in_transaction_session_timeout is 1s", pginspect.Note, "ALTER ROLE " + role + " SET idle_in_transaction_session_timeout = '1s'"},
			{"deadlock_timeout", "it is 50ms: waiters ask 22 times a second", pginspect.Warning, "ALTER DATABASE " + name + " SET deadlock_timeout = '50ms'"},
			{"deadlock_timeout", "it is 1m0s", pginspect.Note, "ALTER DATABASE " + name + " SET deadlock_timeout = '1min'"},
			{"primary", "default_transaction_read_only is on", pginspect.Failure, "ALTER ROLE " + role + " SET default_transaction_read_only = on"},
			{"fence offset", "swanlock.fence_offset is \"many\"", pginspect.Failure, "ALTER DATABASE " + name + " SET swanlock.fence_offset = 'many'"},
			{"rights: statistics", "its own sessions only", pginspect.Note, ""},
			{"rights: kill", "its own sessions only", pginspect.Note, ""},
		} {
			if before := finding(check(role), tt.subject); tt.breaks != "" && strings.Contains(before.Is, tt.is) {
				t.Errorf("%s before: %+v", tt.subject, before)
			}
			if tt.breaks != "" {
				exec(t, admin, tt.breaks)
			}
			f := finding(check(role), tt.subject)
			if f.Level != tt.level || !strings.Contains(f.Is, tt.is) {
				t.Errorf("%s: got %+v, want %s, %q", tt.breaks, f, tt.level, tt.is)
				continue
			}
			exec(t, admin, f.Fix)
			if after := finding(check(role), tt.subject); after.Level == tt.level {
				t.Errorf("after %s: %+v", f.Fix, after)
			}
		}

		want(t, "no audit", finding(check(""), "audit").Level, pginspect.Note)
		migrateTo(t, admin, 1)
		want(t, "half an audit", finding(check(""), "audit").Level, pginspect.Warning)
		must(t, migrate(admin))
		want(t, "an audit", finding(check(""), "audit").Level, pginspect.OK)
		for _, level := range []pginspect.Level{pginspect.Warning, pginspect.Note} {
			f := finding(check(role), "rights: audit")
			want(t, "rights", f.Level, level)
			exec(t, admin, f.Fix)
		}
		want(t, "rights", finding(check(role), "rights: audit").Level, pginspect.OK)
		want(t, "clock", finding(check(""), "clock").Level, pginspect.OK)
		want(t, "pooler", finding(check(""), "pooler").Level, pginspect.OK)
		want(t, "version", finding(check(""), "version").Level, pginspect.OK)
	})
}

// TestCheckOverridden: a timeout that no session of this database gets, because what
// is set more closely hides it, is no finding.
func TestCheckOverridden(t *testing.T) {
	name, role := newDatabase(t), newRole(t)
	admin := connect(t, "pgx", name)
	for _, tt := range []struct{ wide, close, off string }{
		{"ALTER ROLE " + role, "ALTER ROLE " + role + " IN DATABASE " + name, ""},
		{"ALTER ROLE ALL", "ALTER DATABASE " + name, "ALTER ROLE ALL RESET statement_timeout"},
	} {
		exec(t, admin, tt.wide+" SET statement_timeout = '4s'")
		if tt.off != "" {
			t.Cleanup(func() { exec(t, connectNow(t), tt.off) })
		}
		check := func() pginspect.Finding {
			t.Helper()
			r, err := pginspect.Check(bg, connect(t, "pgx", name, role))
			must(t, err)
			return finding(r, "timeouts")
		}
		want(t, tt.wide, check().Level, pginspect.Warning)
		exec(t, admin, tt.close+" SET statement_timeout = '1min'")
		if f := check(); f.Level != pginspect.OK {
			t.Errorf("%s, then %s: %+v", tt.wide, tt.close, f)
		}
	}
}

// TestCheckOfAllRoles: what ALTER ROLE ALL has set is found once, and the fix mends it.
func TestCheckOfAllRoles(t *testing.T) {
	on := connect(t, "pgx", newDatabase(t))
	for subject, setting := range map[string]string{"timeouts": "statement_timeout = '4s'", "deadlock_timeout": "deadlock_timeout = '50ms'"} {
		name, _, _ := strings.Cut(setting, " ")
		exec(t, on, "ALTER ROLE ALL SET "+setting)
		t.Cleanup(func() { exec(t, connectNow(t), "ALTER ROLE ALL RESET "+name) })
		check := func() (found []pginspect.Finding) {
			t.Helper()
			r, err := pginspect.Check(bg, connect(t, "pgx", one[string](t, on, "SELECT current_database()")))
			must(t, err)
			return slices.DeleteFunc(r.Findings, func(f pginspect.Finding) bool { return f.Subject != subject })
		}
		found := check()
		if len(found) != 1 || found[0].Level != pginspect.Warning {
			t.Fatalf("%s: %+v", setting, found)
		}
		exec(t, on, found[0].Fix)
		if after := check(); after[0].Level != pginspect.OK {
			t.Errorf("after %s: %+v", found[0].Fix, after)
		}
	}
}

// TestCheckServer: what only a server's own settings can show, and that a server
// where everything is right is well.
func TestCheckServer(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts servers")
	}
	bad, err := pgserver.Start(bg, pgserver.WithSetting("client_connection_check_interval", "0"), pgserver.WithSetting("tcp_keepalives_idle", "3600"),
		pgserver.WithSetting("statement_timeout", "200ms"), pgserver.WithSetting("max_connections", "4"), pgserver.WithSetting("max_locks_per_transaction", "10"),
		pgserver.WithSetting("superuser_reserved_connections", "1"), pgserver.WithSetting("max_wal_senders", "0"))
	must(t, err)
	defer bad.Stop()
	eachOn(t, bad, func(t *testing.T, r pginspect.Report) {
		want(t, "well", r.Well, false)
		for subject, part := range map[string]string{"dead clients": "does not look", "keepalives": "begin after 1h0m0s", "timeouts": "by the configuration file", "log_lock_waits": "it is off"} {
			if f := finding(r, subject); f.Level == pginspect.OK || !strings.Contains(f.Is+f.Fix, part) {
				t.Errorf("%s: %+v has no %q", subject, f, part)
			}
		}
	})
	good, err := pgserver.Start(bg, pgserver.WithSetting("client_connection_check_interval", "5s"), pgserver.WithSetting("tcp_keepalives_idle", "60"))
	must(t, err)
	defer good.Stop()
	eachOn(t, good, func(t *testing.T, r pginspect.Report) { want(t, "well", r.Well, true) })
}

// TestCheckFixes: each statement that is to mend what the server, or the role, has set
// does so, sent as psql -c sends it.
func TestCheckFixes(t *testing.T) {
	if testing.Short() {
		t.Skip("it starts a server")
	}
	server, err := pgserver.Start(bg, pgserver.WithSetting("client_connection_check_interval", "0"), pgserver.WithSetting("tcp_keepalives_idle", "3600"),
		pgserver.WithSetting("statement_timeout", "3s"), pgserver.WithSetting("deadlock_timeout", "50ms"), pgserver.WithSetting("log_lock_waits", "off"))
	must(t, err)
	defer server.Stop()
	subjects := []string{"dead clients", "keepalives", "timeouts", "deadlock_timeout", "log_lock_waits"}
	for _, breaks := range []string{"SELECT 1", "ALTER ROLE CURRENT_USER SET client_connection_check_interval = 0",
		"ALTER ROLE CURRENT_USER SET deadlock_timeout = 50", "ALTER ROLE CURRENT_USER SET tcp_keepalives_idle = 3600"} {
		on := openURL(t, "postgres", server.URL())
		exec(t, on, breaks)
		r, err := pginspect.Check(bg, openURL(t, "postgres", server.URL()))
		must(t, err)
		mended := 0
		for _, subject := range subjects {
			if f := finding(r, subject); f.Level != pginspect.OK {
				mended++
				if _, err := on.ExecContext(bg, f.Fix); err != nil {
					t.Errorf("%s: %v", f.Fix, err)
				}
			}
		}
		if breaks == "SELECT 1" {
			want(t, "findings", mended, len(subjects))
		} else {
			want(t, "findings after "+breaks, mended, 1)
		}
		r, err = pginspect.Check(bg, openURL(t, "pgx", server.URL()))
		must(t, err)
		for _, subject := range subjects {
			want(t, subject+" after "+breaks, finding(r, subject).Level, pginspect.OK)
		}
	}
}

func eachOn(t *testing.T, server *pgserver.Server, f func(t *testing.T, r pginspect.Report)) {
	for _, driver := range []string{"postgres", "pgx"} {
		r, err := pginspect.Check(bg, openURL(t, driver, server.URL()))
		must(t, err)
		f(t, r)
	}
}

// TestCheckLockTable: a lock table that fills up is found.
func TestCheckLockTable(t *testing.T) {
	on := connect(t, "pgx", newDatabase(t))
	r, err := pginspect.Check(bg, on)
	must(t, err)
	want(t, "before", finding(r, "lock table").Level, pginspect.OK)
	capacity := one[int](t, on, "SELECT current_setting('max_locks_per_transaction')::int * (current_setting('max_connections')::int + current_setting('max_prepared_transactions')::int)")
	c := conn(t, on)
	exec(t, c, "SELECT pg_advisory_lock(n) FROM generate_series(1, $1) n", capacity*60/100)
	r, err = pginspect.Check(bg, on)
	must(t, err)
	want(t, "at 60 %", finding(r, "lock table").Level, pginspect.Warning)
	exec(t, c, "SELECT pg_advisory_unlock_all()")
}

// TestCheckNoServer: a server that is not there is an error, not a finding.
func TestCheckNoServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	dead := url.URL{Scheme: "postgres", User: url.User("u"), Host: l.Addr().String(), Path: "d", RawQuery: "sslmode=disable"}
	l.Close()
	for _, driver := range []string{"postgres", "pgx"} {
		if r, err := pginspect.Check(bg, openURL(t, driver, dead.String())); err == nil {
			t.Errorf("got %+v", r)
		}
	}
}

func TestDuration(t *testing.T) {
	for text, d := range map[string]time.Duration{"0": 0, "30000": 30 * time.Second, "30000ms": 30 * time.Second, "5s": 5 * time.Second, "1 min": time.Minute, "2h": 2 * time.Hour, "1.5d": 36 * time.Hour, "7us": 7 * time.Microsecond} {
		if got, err := pginspect.Duration(text); err != nil || got != d {
			t.Errorf("%q: got %v, %v, want %v", text, got, err, d)
		}
	}
	for _, text := range []string{"", "x", "5 parsecs", "-"} {
		if got, err := pginspect.Duration(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}
