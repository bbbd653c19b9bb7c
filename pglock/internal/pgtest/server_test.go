package pgtest_test

import (
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// TestNewDatabaseSettings: a database and a role have the settings and the
// encoding that were asked for, on either driver.
func TestNewDatabaseSettings(t *testing.T) {
	db := pgtest.NewDatabaseIn(t, "LATIN1", "default_transaction_isolation = serializable", "search_path = app, pg_catalog")
	user, _ := pgtest.NewRole(t, db, "idle_session_timeout = '1min'")
	pgtest.EachDriver(t, func(t *testing.T, driver string) {
		conn := pgtest.Dial(t, driver, db, user)
		for setting, want := range map[string]string{
			"server_encoding": "LATIN1", "default_transaction_isolation": "serializable",
			"search_path": "app, pg_catalog", "idle_session_timeout": "1min",
		} {
			if got := pgtest.One[string](t, conn, "SELECT current_setting($1)", setting); got != want {
				t.Errorf("%s is %q, want %q", setting, got, want)
			}
		}
	})
}

// TestServerLog: the log of a span has what was logged in it, and nothing from
// before; that of a backend has its lines alone, with what continues them.
func TestServerLog(t *testing.T) {
	srv := pgtest.OwnServer(t, pgserver.WithSetting("log_min_error_statement", "error"))
	fail := func(conn *sql.Conn, word string) {
		if _, err := conn.ExecContext(pgtest.Background, "SELECT 1,\n\t"+word); err == nil {
			t.Fatal("no error")
		}
	}
	db := pgtest.OpenURL(t, "pgx", srv.URL())
	first, second := pgtest.ConnOf(t, db), pgtest.ConnOf(t, db)
	fail(first, "before")
	log := pgtest.LogOf(t, srv)
	if lines := log.Lines(); len(lines) > 0 {
		t.Errorf("%q was logged in no time", lines)
	}
	fail(first, "mine")
	fail(second, "theirs")
	fail(first, "mine")
	count := func(lines []string, word string) (n int) {
		for _, line := range lines {
			if strings.Contains(line, word) {
				n++
			}
		}
		return n
	}
	// The error names the column, and so does the statement's second line.
	all, mine := log.Lines(), log.LinesOf(pgtest.PIDOf(t, first))
	for _, c := range []struct {
		lines []string
		word  string
		want  int
	}{{all, "before", 0}, {all, "mine", 4}, {all, "theirs", 2}, {mine, "mine", 4}, {mine, "theirs", 0}} {
		if got := count(c.lines, c.word); got != c.want {
			t.Errorf("%q is in %d lines, want %d: %q", c.word, got, c.want, c.lines)
		}
	}
}

// TestPause: a paused server answers neither a session that there is nor a new
// connection, and when it runs again both are answered.
func TestPause(t *testing.T) {
	srv := pgtest.OwnServer(t)
	db := pgtest.OpenURL(t, "pgx", srv.URL())
	conn := pgtest.ConnOf(t, db)
	pid := pgtest.PIDOf(t, conn)
	resume := pgtest.Pause(t, srv)
	ran := make(chan error, 2)
	go func() {
		_, err := conn.ExecContext(pgtest.Background, "SELECT 1")
		ran <- err
	}()
	go func() {
		ran <- pgtest.OpenURL(t, "postgres", srv.URL()).Ping()
	}()
	time.Sleep(aWhile)
	if len(ran) > 0 {
		t.Error("the paused server answered")
	}
	resume()
	for range cap(ran) {
		pgtest.Must(t, <-ran)
	}
	if got := pgtest.PIDOf(t, conn); got != pid {
		t.Errorf("backend %d became %d", pid, got)
	}
}
