package browser

import (
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/pressly/goose/v3"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/lockweb"
	"github.com/swanlake-io/swanlock/migrations"
	"github.com/swanlake-io/swanlock/pglock"
)

func TestMain(m *testing.M) {
	pgserver.Main(after{m})
}

// after ends the browser when the tests have run.
type after struct{ m *testing.M }

func (a after) Run() int {
	defer func() { endBrowser() }()
	return a.m.Run()
}

// token is the one of every page that has one.
const token = "0123456789abcdef-token"

// A scene is a server of its own, and a page about it.
type scene struct {
	t      testing.TB
	server *pgserver.Server
	db     *sql.DB // of those that hold
	url    string
}

func newScene(t testing.TB, audit bool, opts ...lockweb.Option) *scene {
	t.Helper()
	server, err := pgserver.Start(t.Context(), pgserver.WithSetting("max_connections", "200"), pgserver.WithSetting("fsync", "off"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Stop(); err != nil {
			t.Log(err)
		}
	})
	open := func(driver, name string) *sql.DB {
		on, err := sql.Open(driver, server.URL("application_name="+name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { on.Close() })
		return on
	}
	s := &scene{t: t, server: server, db: open("pgx", "ingest")}
	if audit {
		p, err := goose.NewProvider(goose.DialectPostgres, s.db, migrations.FS, goose.WithTableName(migrations.Table))
		if err == nil {
			_, err = p.Up(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	page := httptest.NewServer(lockweb.Handler(open("postgres", "swanlock"), append([]lockweb.Option{lockweb.WithTitle("lake on db.example.com")}, opts...)...))
	t.Cleanup(func() {
		page.CloseClientConnections()
		page.Close()
	})
	s.url = page.URL + "/"
	return s
}

func (s *scene) exec(query string, args ...any) {
	s.t.Helper()
	if _, err := s.db.Exec(query, args...); err != nil {
		s.t.Fatalf("%s: %v", query, err)
	}
}

// pool makes a pool of audited locks, or of those that are not.
func (s *scene) pool(opts ...pglock.PoolOption) *pglock.Pool {
	s.t.Helper()
	p, err := pglock.NewPool(s.db, opts...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { p.Close(context.Background()) })
	return p
}

func (s *scene) hold(l swanlock.Locker, target, owner string, opts ...swanlock.Option) swanlock.DistributedLock {
	s.t.Helper()
	held, err := l.Acquire(s.t.Context(), target, append(opts, swanlock.WithOwner(owner))...)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = held.Release(context.Background()) }) // it may be lost by then
	return held
}

// session is a locker on a connection of its own.
func (s *scene) session(opts ...pglock.SessionOption) *pglock.Session {
	s.t.Helper()
	c, err := s.db.Conn(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	l := pglock.NewSession(c, opts...)
	s.t.Cleanup(func() { l.Close(context.Background()); c.Close() })
	return l
}

// wait has so many wait for a target, and returns when they do.
func (s *scene) wait(target string, n int) {
	s.t.Helper()
	var sessions []*pglock.Session
	for range n {
		sessions = append(sessions, s.session(pglock.WithAudit()))
	}
	ctx, stop := context.WithCancel(context.Background())
	var all sync.WaitGroup
	s.t.Cleanup(func() { stop(); all.Wait() }) // before the sessions are closed
	for i, l := range sessions {
		all.Go(func() {
			if held, err := l.Acquire(ctx, target, swanlock.WithOwner(fmt.Sprintf("worker-%d", i+1))); err == nil {
				held.Release(context.Background())
			}
		})
		for end := time.Now().Add(patience); s.tickets() < i+1 && time.Now().Before(end); {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func (s *scene) tickets() (n int) {
	if err := s.db.QueryRow("SELECT count(DISTINCT pid) FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND mode = 'ExclusiveLock' AND objid::bigint & 262143 > 0").Scan(&n); err != nil {
		s.t.Fatal(err)
	}
	return n
}

// past writes a row of the audit: a hold that began ago and lasted for length.
func (s *scene) past(target, owner string, fence int, ago, length time.Duration, end string) {
	s.t.Helper()
	s.exec(`INSERT INTO lock_audit (target, key, owner, ttl_ms, mode, fence, backend_pid, backend_start, client_addr, acquired_at, refreshed_at, released_at, end_reason, ended_by)
		SELECT $1, $2, $3, 30000, 'exclusive', $4::bigint, 4000 + $4::integer, at, '10.0.0.7', at, at + l, CASE WHEN $7::text <> '' THEN at + l END, nullif($7::text, ''), CASE WHEN $7 = 'killed' THEN 'alice (swanlock kill)' END
		FROM (SELECT now() - $5::float8 * interval '1 second' AS at, $6::float8 * interval '1 second' AS l) t`,
		target, int64(swanlock.KeyOf(target)), owner, fence, ago.Seconds(), length.Seconds(), end)
}

// busy fills a scene as a day's work would.
func (s *scene) busy() {
	s.t.Helper()
	hosts := []string{"ingest-1", "ingest-2", "ingest-3"}
	ago := 14 * time.Minute
	for i := 0; ago > 40*time.Second; i++ {
		length := time.Duration(20+i*17%50) * time.Second
		if length > ago-20*time.Second {
			length = ago - 20*time.Second
		}
		end := "released"
		switch i {
		case 5:
			end = "expired"
		case 9:
			end = "killed"
		}
		s.past("/lake/checkpoint", hosts[i%3]+"/812", 100+i, ago, length, end)
		ago -= length + 3*time.Millisecond
		if i%4 == 3 {
			ago -= 15 * time.Second
		}
	}
	for i := range 8 {
		s.past("/lake/compact/orders", hosts[i%2]+"/91", 300+i, time.Duration(13-i)*time.Minute, time.Duration(10+i*6)*time.Second, "released")
	}
	s.past("nightly-report", "cron-1/77", 500, 11*time.Minute, 3*time.Minute, "")
	s.past("/lake/vacuum", "ingest-2/812", 501, 7*time.Minute, 90*time.Second, "lost")
	audited := s.session(pglock.WithAudit())
	s.hold(audited, "/lake/checkpoint", "ingest-2/812", swanlock.WithTTL(30*time.Second), swanlock.WithFence(), swanlock.WithAutoRefresh())
	s.hold(s.session(pglock.WithAudit()), "/lake/vacuum", "ingest-3/812", swanlock.WithTTL(10*time.Minute))
	for i := range 3 {
		s.hold(s.session(pglock.WithAudit()), "/lake/catalog", fmt.Sprintf("reader-%d/5", i+1), swanlock.WithShared())
	}
	s.hold(s.session(), "/lake/compact/orders", "ingest-1/91")
	s.hold(s.session(), "unknown "+rand.Text(), "x")
	foreign, err := s.db.Conn(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { foreign.Close() })
	if _, err := foreign.ExecContext(s.t.Context(), "SELECT pg_advisory_lock(7, 12)"); err != nil {
		s.t.Fatal(err)
	}
	s.wait("/lake/checkpoint", 3)
}
