package verify_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A knockout is swanlock with one guarantee taken out. verify must find that.
type knockout struct {
	name    string
	edits   []edit
	faults  string
	want    []string // the kinds of which one at least must be found
	seconds int
}

// An edit replaces text that is in a file exactly once.
type edit struct{ file, old, new string }

var knockouts = []knockout{
	{"the server keeps no lease", []edit{{"pglock/wire.go",
		"lease = timeouts{}.of(ttl).idleInTransaction",
		"_ = ttl"}},
		"stop", []string{"held by nobody"}, 14},
	{"the holder never sees its lease end", []edit{{"pglock/lock.go",
		"if h.err == nil && (h.lease.left(now) <= 0 || h.led.lease.left(now) <= 0) {",
		"if false {"}},
		"stop", []string{"mutex", "readers-writer"}, 10},
	{"the holder counts its lease for longer than the server", []edit{{"pglock/lease.go",
		"return l.ttl - max(",
		"return l.ttl + l.ttl/2 - max("}},
		"none", []string{"mutex", "readers-writer"}, 10},
	{"what is granted too late is kept", []edit{{"pglock/session.go",
		"		w.unlock(ctx, h)\n		return nil, late",
		"		return nil, late"}},
		"cancel", []string{"held by nobody"}, 10},
	{"a release under a context that has ended is not sent", []edit{{"pglock/lock.go",
		"			err = w.unlock(ctx, h)",
		"			if ctx.Err() == nil {\n				err = w.unlock(ctx, h)\n			}"}},
		"cancel", []string{"held by nobody"}, 10},
	{"a release does not unlock", []edit{{"db/advisory.sql.go",
		"WHEN pg_catalog.pg_advisory_unlock($2::bigint) THEN pg_catalog.pg_backend_pid()\n",
		"WHEN $2::bigint IS NOT NULL THEN pg_catalog.pg_backend_pid()\n"}},
		"none", []string{"held by nobody"}, 10},
	{"a release says that all was well, although the session was gone", []edit{{"pglock/settle.go",
		"		w.destroy(h.led, explain(err, false))\n		return h.over()",
		"		w.destroy(h.led, explain(err, false))\n		return nil"}},
		"terminate", []string{"mutex", "readers-writer"}, 12},
	{"exclusive locks are shared", []edit{{"db/advisory.sql.go",
		"WHEN CASE WHEN $5::boolean THEN pg_catalog.pg_try_advisory_lock_shared($6::bigint) ELSE pg_catalog.pg_try_advisory_lock($6) END",
		"WHEN CASE WHEN $5::boolean THEN pg_catalog.pg_try_advisory_lock_shared($6::bigint) ELSE pg_catalog.pg_try_advisory_lock_shared($6) END"}},
		"none", []string{"mutex", "readers-writer"}, 10},
	{"readers lock nothing", []edit{{"db/advisory.sql.go",
		"WHEN CASE WHEN $5::boolean THEN pg_catalog.pg_try_advisory_lock_shared($6::bigint) ELSE pg_catalog.pg_try_advisory_lock($6) END",
		"WHEN CASE WHEN $5::boolean THEN true ELSE pg_catalog.pg_try_advisory_lock($6::bigint) END"}},
		"none", []string{"readers-writer"}, 10},
	{"half of the processes have keys of their own", []edit{
		{"pglock/key.go", "import (\n", "import (\n	\"os\"\n"},
		{"pglock/key.go", "return Key(h.sum())", "return Key(h.sum() ^ uint64(os.Getpid()&1))"}},
		"none", []string{"mutex", "readers-writer"}, 10},
	{"the fence is the session's, not the grant's", []edit{{"pglock/wire.go",
		"h.info.Fence = uint64(answer)",
		"h.info.Fence = uint64(answer)\n	if answer > 0 {\n		h.info.Fence = uint64(h.pid)\n	}"}},
		"none", []string{"fence"}, 10},
	{"the fence is taken before the grant", []edit{{"db/advisory.sql.go",
		"WHEN $2::boolean AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN -3",
		"WHEN $2::boolean AND (pg_current_xact_id() IS NULL OR pg_sleep(0.1 * random()) IS NULL) THEN -3"}},
		"none", []string{"fence"}, 10},
	{"the audit closes its row after the unlock", []edit{{"db/audit.sql.go",
		"UPDATE public.lock_audit SET released_at = GREATEST(refreshed_at, pg_catalog.clock_timestamp()), end_reason",
		"UPDATE public.lock_audit SET released_at = GREATEST(refreshed_at, pg_catalog.clock_timestamp()) + interval '40 milliseconds', end_reason"}},
		"none", []string{"audit"}, 10},
	{"the audit leaves the rows of the dead open", []edit{{"db/audit.sql.go",
		" AND a.id OPERATOR(pg_catalog.=) o.id\n", " AND a.id OPERATOR(pg_catalog.=) o.id AND a.id < 0\n"}},
		"kill", []string{"audit"}, 10},
	{"a fenced grant does not wait for the disk", []edit{{"db/advisory.sql.go",
		"WHEN pg_catalog.pg_logical_emit_message(true, 'swanlock', ''::varchar) IS NOT NULL\n                THEN",
		"ELSE"}},
		"restart", []string{"fence"}, 20},
	{"who waits has nobody ahead", []edit{{"pglock/line.go",
		"t.ahead.Store(t.number - 1)",
		"t.ahead.Store(0)"}},
		"cancel", []string{"line"}, 20},
	{"a pool's session keeps no lease", []edit{{"pglock/poolsession.go",
		"params = timeouts{}.of(s.lease).idleInTransaction",
		"params = \"\""}},
		"stop", []string{"held by nobody"}, 20},
	{"a pool does not know what it holds itself", []edit{
		{"pglock/pool.go", "if c != nil && !(c.shared && r.Shared) {", "if c != nil && c.n > 1000 {"},
		{"pglock/batch.go", "return has || !o.r.Shared && s.p.claims[o.h.id.key].n > 1", "return has && false"}},
		"none", []string{"mutex", "readers-writer"}, 20},
}

const root = "../.."

// apply returns what the files of k become.
func (k knockout) apply() (map[string]string, error) {
	texts := make(map[string]string)
	for _, e := range k.edits {
		text, ok := texts[e.file]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.file))
			if err != nil {
				return nil, err
			}
			text = string(b)
		}
		if n := strings.Count(text, e.old); n != 1 {
			return nil, fmt.Errorf("%s has the text %d times, not once: %q", e.file, n, e.old)
		}
		texts[e.file] = strings.Replace(text, e.old, e.new, 1)
	}
	return texts, nil
}

// TestKnockoutsApply: the list fits the code, so that each of them is really
// knocked out.
func TestKnockoutsApply(t *testing.T) {
	for _, k := range knockouts {
		texts, err := k.apply()
		if err != nil {
			t.Errorf("%s: %v", k.name, err)
		}
		for file, text := range texts {
			if _, err := parser.ParseFile(token.NewFileSet(), file, text, 0); err != nil {
				t.Errorf("%s: %v", k.name, err)
			}
		}
	}
}

// knockoutsVar is set by make verify-knockouts: they take minutes.
const knockoutsVar = "SWANLOCK_KNOCKOUTS"

// TestKnockouts builds each of them and has verify try to break it.
func TestKnockouts(t *testing.T) {
	if os.Getenv(knockoutsVar) == "" {
		t.Skip("it takes minutes: make verify-knockouts")
	}
	for _, k := range knockouts {
		t.Run(k.name, func(t *testing.T) {
			exe := k.build(t)
			var stdout, stderr bytes.Buffer
			dir := filepath.Join(t.TempDir(), "out")
			c := exec.Command(exe, "verify", "--embedded", "--json", "--seed", "1", "--out", dir,
				"--duration", fmt.Sprintf("%ds", k.seconds), "--faults", k.faults)
			c.Stdout, c.Stderr = &stdout, &stderr
			err := c.Run()
			if got, want := c.ProcessState.ExitCode(), 1; got != want {
				t.Fatalf("verify exits with %d (%v), want %d; stderr:\n%s", got, err, want, &stderr)
			}
			var report struct{ Findings []struct{ Kind, Text string } }
			if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
				t.Fatal(err)
			}
			kinds := make(map[string]int)
			for _, f := range report.Findings {
				kinds[f.Kind]++
			}
			t.Logf("found: %v", kinds)
			if !slices.ContainsFunc(k.want, func(kind string) bool { return kinds[kind] > 0 }) {
				t.Errorf("got findings of the kinds %v, want one of %q", kinds, k.want)
			}
			for _, name := range []string{"history.jsonl", "history.html"} {
				if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Size() == 0 {
					t.Errorf("%s is not there, or empty: %v", name, err)
				}
			}
		})
	}
}

func (k knockout) build(t *testing.T) (exe string) {
	t.Helper()
	texts, err := k.apply()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	var overlay struct{ Replace map[string]string }
	overlay.Replace = make(map[string]string)
	for file, text := range texts {
		path, err := filepath.Abs(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		mutant := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay.Replace)))
		if err := os.WriteFile(mutant, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		overlay.Replace[path] = mutant
	}
	b, err := json.Marshal(overlay)
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o644); err != nil {
		t.Fatal(err)
	}
	exe = filepath.Join(dir, "swanlock")
	c := exec.Command("go", "build", "-overlay", list, "-o", exe, "./cmd/swanlock")
	c.Dir = root
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return exe
}
