package lockweb_test

import (
	"bufio"
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"github.com/pressly/goose/v3"
	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/lockweb"
	"github.com/swanlake-io/swanlock/migrations"
	"github.com/swanlake-io/swanlock/pglock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgserver.Around(m)) }

var bg = context.Background()

const (
	// patience is how long a test waits for what should come at once.
	patience = 20 * time.Second
	token    = "0123456789abcdef-token"
)

func eachDriver(t *testing.T, f func(t *testing.T, driver string)) {
	drivers := []string{"postgres", "pgx"}
	if asked := os.Getenv("SWANLOCK_DRIVERS"); asked != "" && asked != "all" {
		drivers = strings.Split(asked, ",")
	}
	for _, driver := range drivers {
		t.Run(driver, func(t *testing.T) {
			t.Parallel()
			f(t, driver)
		})
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func contains(t testing.TB, what, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%s has no %q:\n%.2000s", what, part, text)
		}
	}
}

var migrateDefault = sync.OnceFunc(func() {
	on, err := sql.Open("postgres", pgserver.Default().URL())
	if err == nil {
		err = errors.Join(migrate(on), on.Close())
	}
	if err != nil {
		panic(err)
	}
})

func migrate(on *sql.DB) error {
	p, err := goose.NewProvider(goose.DialectPostgres, on, migrations.FS, goose.WithTableName(migrations.Table))
	if err == nil {
		_, err = p.Up(bg)
	}
	return err
}

// connect opens a database; "" is the default one, which is migrated.
func connect(t testing.TB, driver, database string) *sql.DB {
	t.Helper()
	migrateDefault()
	address, err := url.Parse(pgserver.Default().URL())
	must(t, err)
	if database != "" {
		address.Path = database
	}
	on, err := sql.Open(driver, address.String())
	must(t, err)
	t.Cleanup(func() { on.Close() })
	return on
}

// newDatabase makes a database without the migrations, gone with the test, and returns its name.
func newDatabase(t testing.TB) (name string) {
	t.Helper()
	on := connect(t, "postgres", "")
	name = "web_" + strings.ToLower(rand.Text())
	_, err := on.Exec("CREATE DATABASE " + name)
	must(t, err)
	t.Cleanup(func() {
		_, err := on.Exec("DROP DATABASE " + name + " WITH (FORCE)")
		must(t, err)
	})
	return name
}

// A site is a page that is served, and a client of it.
type site struct {
	t      testing.TB
	url    string
	client *http.Client
}

func serve(t testing.TB, on *sql.DB, opts ...lockweb.Option) *site {
	t.Helper()
	server := httptest.NewServer(lockweb.Handler(on, append([]lockweb.Option{lockweb.WithInterval(100 * time.Millisecond)}, opts...)...))
	t.Cleanup(server.Close)
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &site{t, server.URL, client}
}

// send sends a request, changed by edit, and returns the answer and its body.
func (s *site) send(method, path, body string, edit func(*http.Request)) (*http.Response, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	must(s.t, err)
	if edit != nil {
		edit(r)
	}
	answer, err := s.client.Do(r)
	must(s.t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	must(s.t, err)
	return answer, string(text)
}

func (s *site) get(path string) (*http.Response, string) {
	s.t.Helper()
	return s.send("GET", path, "", nil)
}

func bearer(r *http.Request) { r.Header.Set("Authorization", "Bearer "+token) }

// A message is one of the stream.
type message struct {
	Now  int64
	Full bool
	Head *struct {
		Locks, Shown, Waiters int
		Audit, Trouble        string
	}
	Set  map[string]map[string]any
	Gone []string
}

// stream follows the stream until the test ends.
func (s *site) stream(edit func(*http.Request)) <-chan message {
	s.t.Helper()
	ctx, stop := context.WithCancel(bg)
	r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/api/events", nil)
	must(s.t, err)
	if edit != nil {
		edit(r)
	}
	answer, err := s.client.Do(r)
	must(s.t, err)
	want(s.t, "status of the stream", answer.StatusCode, 200)
	want(s.t, "its type", answer.Header.Get("Content-Type"), "text/event-stream")
	messages, done := make(chan message), make(chan struct{})
	go func() {
		defer close(done)
		lines := bufio.NewScanner(answer.Body)
		lines.Buffer(nil, 16<<20)
		for lines.Scan() {
			if text, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
				var m message
				if err := json.Unmarshal([]byte(text), &m); err != nil {
					s.t.Error(err)
				}
				select {
				case messages <- m:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	s.t.Cleanup(func() { stop(); <-done; answer.Body.Close() })
	return messages
}

// until reads messages, and keeps what they bring, until enough says so.
func until(t testing.TB, messages <-chan message, items map[string]map[string]any, what string, enough func(m message) bool) message {
	t.Helper()
	end := time.After(patience)
	for {
		select {
		case m := <-messages:
			if m.Full {
				clear(items)
			}
			for _, id := range m.Gone {
				delete(items, id)
			}
			for id, item := range m.Set {
				items[id] = item
			}
			if enough(m) {
				return m
			}
		case <-end:
			t.Fatalf("after %v the stream has not brought: %s", patience, what)
		}
	}
}

// lockOf returns the item of a lock, or nil.
func lockOf(items map[string]map[string]any, name string) map[string]any {
	for id, item := range items {
		if id[0] == 'l' && item["name"] == name {
			return item
		}
	}
	return nil
}

func newTarget(t testing.TB) string { return "/" + t.Name() + "/" + rand.Text() }

// acquire takes an audited lock on a session of its own.
func acquire(t testing.TB, on *sql.DB, target string, opts ...swanlock.Option) swanlock.DistributedLock {
	t.Helper()
	c, err := on.Conn(bg)
	must(t, err)
	s := pglock.NewSession(c, pglock.WithAudit())
	held, err := s.TryAcquire(bg, target, opts...)
	must(t, err)
	t.Cleanup(func() {
		held.Release(bg)
		s.Close(bg)
		c.Close()
	})
	return held
}
