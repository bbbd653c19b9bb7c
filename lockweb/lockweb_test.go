package lockweb_test

import (
	"crypto/rand"
	"database/sql"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/lockweb"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestStream: a lock comes with its owner and fence, is not sent again while
// nothing changes, and goes; a page that comes later gets the same.
func TestStream(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		s := serve(t, on)
		items := map[string]map[string]any{}
		messages := s.stream(nil)
		first := until(t, messages, items, "the first message", func(message) bool { return true })
		want(t, "the first is full", first.Full, true)

		held := acquire(t, on, target, swanlock.WithOwner("me/1"), swanlock.WithTTL(time.Minute), swanlock.WithFence())
		until(t, messages, items, "the lock", func(message) bool { return lockOf(items, target) != nil && lockOf(items, target)["kind"] == "audited" })
		item := lockOf(items, target)
		for name, value := range map[string]any{"owner": "me/1", "fence": fmt.Sprint(held.Info().Fence), "ttl": 60000.0, "pid": float64(held.(*pglock.PostgresLock).BackendPID()), "exact": true} {
			want(t, name, item[name], value)
		}
		for range 3 {
			m := until(t, messages, items, "a message", func(message) bool { return true })
			for id, again := range m.Set {
				if id[0] == 'l' && again["name"] == target {
					t.Errorf("nothing changed, but %s is sent again", id)
				}
			}
		}
		later := map[string]map[string]any{}
		until(t, s.stream(nil), later, "the first message of another page", func(message) bool { return true })
		want(t, "the lock's fence there", lockOf(later, target)["fence"], item["fence"])

		_, err := on.Exec("UPDATE lock_audit SET succeeded_at = now() WHERE target = $1", target)
		must(t, err)
		must(t, held.Release(bg))
		until(t, messages, items, "the end of the lock", func(message) bool { return lockOf(items, target) == nil })
		until(t, messages, items, "its record", func(message) bool {
			for id, r := range items {
				if id[0] == 'r' && r["target"] == target && r["end"] == "released" {
					if at, _ := r["succeeded"].(float64); time.UnixMilli(int64(at)).Before(time.Now().Add(-time.Hour)) {
						t.Errorf("it succeeded at %v", r["succeeded"])
					}
					return true
				}
			}
			return false
		})
		_, state := s.get("/api/state")
		contains(t, "the state", state, `"full":true`, target)
	})
}

// TestStreamWithoutAudit: a lock comes by its key, and the head says why.
func TestStreamWithoutAudit(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, newDatabase(t))
		s := serve(t, on)
		c, err := on.Conn(bg)
		must(t, err)
		defer c.Close()
		_, err = c.ExecContext(bg, "SELECT pg_advisory_lock($1)", int64(pglock.KeyOf("/a")))
		must(t, err)
		items := map[string]map[string]any{}
		m := until(t, s.stream(nil), items, "a message", func(message) bool { return true })
		want(t, "audit", m.Head.Audit, "none")
		want(t, "kind", lockOf(items, fmt.Sprintf("key %d", pglock.KeyOf("/a")))["kind"], "keyed")
		answer, text := s.get("/api/history?target=/a")
		want(t, "status of the history", answer.StatusCode, 404)
		contains(t, "the history", text, "swanlock migrate up")
	})
}

// TestHeldFromItsBeginning: the moment at which a hold began, as the page shows it,
// leads to that hold, and the one at which it ended does not.
func TestHeldFromItsBeginning(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		s := serve(t, on)
		type records struct {
			Records []struct {
				ID              string
				Acquired, Ended int64
			}
		}
		get := func(path string, query url.Values) (got records) {
			_, text := s.get(path + "?" + query.Encode())
			must(t, json.Unmarshal([]byte(text), &got))
			return got
		}
		for range 5 { // One may just begin with a millisecond.
			held := acquire(t, on, target)
			time.Sleep(5 * time.Millisecond)
			must(t, held.Release(bg))
		}
		all := get("/api/history", url.Values{"target": {target}})
		want(t, "records", len(all.Records), 5)
		for _, r := range all.Records {
			for at, held := range map[int64]bool{r.Acquired: true, r.Ended: false} {
				got := false
				for _, o := range get("/api/held", url.Values{"at": {fmt.Sprint(at)}}).Records {
					got = got || o.ID == r.ID
				}
				if got != held {
					t.Errorf("the hold from %d to %d is held at %d: %v", r.Acquired, r.Ended, at, got)
				}
			}
		}
	})
}

// TestHistory: the records of a target are those that meet the time, also when
// they began before it; a pattern's characters are but characters.
func TestHistory(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)+"*?\\"
		s := serve(t, on)
		must(t, acquire(t, on, target, swanlock.WithOwner("before")).Release(bg))
		other := acquire(t, on, strings.TrimSuffix(target, "*?\\")+"**?\\", swanlock.WithOwner("other"))
		spans := []swanlock.DistributedLock{other, acquire(t, on, target, swanlock.WithOwner("spans"), swanlock.WithShared()),
			acquire(t, on, target, swanlock.WithOwner("spans too"), swanlock.WithShared())}
		time.Sleep(20 * time.Millisecond)
		from := time.Now()
		for _, held := range spans {
			must(t, held.Release(bg))
		}
		acquire(t, on, target, swanlock.WithOwner("holds"))
		records := func(path string, query url.Values) (owners []string) {
			answer, text := s.get(path + "?" + query.Encode())
			want(t, "status", answer.StatusCode, 200)
			var got struct {
				Records []struct{ Target, Owner, State string }
			}
			must(t, json.Unmarshal([]byte(text), &got))
			for _, r := range got.Records {
				if r.Target == target {
					owners = append(owners, r.Owner+" "+r.State)
				} else if query.Has("target") {
					t.Errorf("there is a record of %q", r.Target)
				}
			}
			return owners
		}
		want(t, "records", strings.Join(records("/api/history", url.Values{"target": {target}, "from": {from.Format(time.RFC3339Nano)}}), ", "), "holds held, spans too ended, spans ended")
		want(t, "all records", strings.Join(records("/api/history", url.Values{"target": {target}}), ", "), "holds held, spans too ended, spans ended, before ended")
		want(t, "held then", strings.Join(records("/api/held", url.Values{"at": {fmt.Sprint(from.Add(-5 * time.Millisecond).UnixMilli())}}), ", "), "spans ended, spans too ended")
		for _, bad := range []string{"/api/history?from=yesterday", "/api/held?at=x", "/api/history?target=%00", "/api/history?target=%ff", "/api/history?after=x"} {
			if answer, text := s.get(bad); answer.StatusCode != 400 || !strings.Contains(text, `{"error":"`) {
				t.Errorf("%s: %d, %s", bad, answer.StatusCode, text)
			}
		}
	})
}

// TestServerGone: the stream goes on, says so, and keeps what it knew.
func TestServerGone(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		mine, err := sql.Open(driver, connectURL())
		must(t, err)
		s := serve(t, mine)
		acquire(t, on, target)
		items, messages := map[string]map[string]any{}, s.stream(nil)
		until(t, messages, items, "the lock", func(message) bool { return lockOf(items, target) != nil })
		if answer, text := s.get("/healthz"); answer.StatusCode != 200 || text != "ok\n" {
			t.Errorf("healthz: %d %q", answer.StatusCode, text)
		}
		must(t, mine.Close()) // to the page, the server is gone
		until(t, messages, items, "the trouble", func(m message) bool { return m.Head != nil && m.Head.Trouble != "" })
		want(t, "the lock is still shown", lockOf(items, target) != nil, true)
		if answer, text := s.get("/healthz"); answer.StatusCode != 503 || text != "PostgreSQL does not answer\n" {
			t.Errorf("healthz: %d %q", answer.StatusCode, text)
		}
		_, text := s.get("/metrics")
		contains(t, "the metrics", text, "swanlock_server_up 0\n")
		want(t, "no count is made up", strings.Contains(text, "swanlock_server_locks"), false)
	})
}

// TestMetrics: the text is Prometheus's, and counts what is there.
func TestMetrics(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on := connect(t, driver, "")
		s := serve(t, on)
		acquire(t, on, newTarget(t), swanlock.WithShared())
		answer, text := s.get("/metrics")
		want(t, "type", answer.Header.Get("Content-Type"), "text/plain; version=0.0.4; charset=utf-8")
		contains(t, "the metrics", text, "swanlock_server_up 1\n", "# TYPE swanlock_server_locks gauge\n", "swanlock_server_longest_hold_seconds ", "swanlock_server_waiters ", "swanlock_server_pages 0\n")
		if !regexp.MustCompile(`(?m)^swanlock_server_locks\{kind="audited",mode="shared"\} [1-9]`).MatchString(text) {
			t.Errorf("the shared lock is not counted:\n%s", text)
		}
		for line := range strings.Lines(text) {
			if !regexp.MustCompile(`^(# (HELP|TYPE) [a-z_]+ .*|[a-z_]+(\{[a-z]+="[a-z]+",[a-z]+="[a-z]+"\})? [-+.e\d]+)\n$`).MatchString(line) {
				t.Errorf("this is no line of Prometheus's: %q", line)
			}
		}
	})
}

// TestKill: a session is ended only if it still holds what was shown, and then
// the audit says by whom.
func TestKill(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target := connect(t, driver, ""), newTarget(t)
		s := serve(t, on, lockweb.WithToken(token))
		held := acquire(t, on, target)
		items := map[string]map[string]any{}
		until(t, s.stream(bearer), items, "the lock", func(message) bool { return lockOf(items, target) != nil })
		item := lockOf(items, target)
		kill := func(changes map[string]any) (int, string) {
			ask := map[string]any{"pid": item["pid"], "started": item["started"], "key": item["key"], "by": "bob\n<b>\x00"}
			for name, value := range changes {
				ask[name] = value
			}
			body, err := json.Marshal(ask)
			must(t, err)
			answer, text := s.send("POST", "/api/kill", string(body), func(r *http.Request) {
				bearer(r)
				r.Header.Set("Content-Type", "application/json")
			})
			return answer.StatusCode, text
		}
		for status, changes := range map[int][]map[string]any{
			409: {{"started": "12345"}, {"key": "7"}, {"pid": 2147483647}},
			400: {{"pid": -1}, {"pid": "1"}, {"more": 1}},
		} {
			for _, c := range changes {
				if got, text := kill(c); got != status {
					t.Errorf("%v: %d, %s, want %d", c, got, text, status)
				}
			}
		}
		must(t, held.Refresh(bg))
		if got, text := kill(nil); got != 200 || !strings.Contains(text, `"rows":1`) {
			t.Errorf("kill: %d, %s", got, text)
		}
		if held.Refresh(bg) == nil {
			t.Error("the lock is still held")
		}
		var reason, by string
		must(t, on.QueryRow("SELECT end_reason, ended_by FROM lock_audit WHERE target = $1", target).Scan(&reason, &by))
		want(t, "reason", reason, "killed")
		want(t, "by", by, "bob <b> (on the web page, from 127.0.0.1)")
		if got, text := kill(nil); got != 409 {
			t.Errorf("kill again: %d, %s", got, text)
		}
	})
}

// TestKillNotAllowed: a role that may not end the session says so with 403, and the
// lock is held on.
func TestKillNotAllowed(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		on, target, role := connect(t, driver, ""), newTarget(t), "web_"+strings.ToLower(rand.Text())
		_, err := on.Exec("CREATE ROLE " + role + " LOGIN")
		must(t, err)
		defer func() { _, err := on.Exec("DROP ROLE " + role); must(t, err) }()
		held := acquire(t, on, target)
		address, err := url.Parse(connectURL())
		must(t, err)
		address.User = url.User(role)
		mine, err := sql.Open(driver, address.String())
		must(t, err)
		defer mine.Close()
		c, ok := swanlock.As[*pglock.PostgresLock](held)
		want(t, "it is a lock of pglock's", ok, true)
		// This role does not see when the session began, nor what it has locked by name.
		body := fmt.Sprintf(`{"pid": %d, "started": "", "key": "%d", "by": "bob"}`, c.BackendPID(), swanlock.KeyOf(target))
		answer, text := serve(t, mine, lockweb.WithToken(token)).send("POST", "/api/kill", body, func(r *http.Request) {
			bearer(r)
			r.Header.Set("Content-Type", "application/json")
		})
		if answer.StatusCode != http.StatusForbidden || !strings.Contains(text, "may not end that session") {
			t.Errorf("got %d, %s, want 403", answer.StatusCode, text)
		}
		must(t, held.Refresh(bg))
	})
}
