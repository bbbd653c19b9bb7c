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
	"strconv"
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

var knockouts = []knockout{
	{"the server keeps no lease", []edit{{"pglock", "ledger.enter",
		"e.lease = timeouts{}.of(ttl).idleInTransaction",
		"_ = ttl"}},
		"stop", []string{"held by nobody"}, 40},
	{"the holder never sees its lease end", []edit{{"pglock", "hold.expireLocked",
		"h.err == nil && h.leftLocked(now) <= 0",
		"false"}},
		"stop", []string{"mutex", "readers-writer"}, 10},
	{"the holder counts its lease for longer than the server", []edit{{"internal/lease", "Term.Left",
		"t.Length - max(now.Sub(t.Start), now.Round(0).Sub(t.Start.Round(0)))",
		"t.Length + t.Length/2 - max(now.Sub(t.Start), now.Round(0).Sub(t.Start.Round(0)))"}},
		"none", []string{"mutex", "readers-writer"}, 20},
	{"what is granted too late is kept", []edit{{"pglock", "grant",
		"release(tn, h)\nreturn late",
		"return late"}},
		"cancel", []string{"held by nobody"}, 20},
	{"a release under a context that has ended is not sent", []edit{{"pglock", "access.release",
		"err := release(tn, h)",
		"err := ctx.Err(); if err == nil { err = release(tn, h) }"}},
		"cancel", []string{"held by nobody"}, 15},
	{"a release does not unlock", []edit{{"db", "Release",
		"WHEN pg_catalog.pg_advisory_unlock($2::bigint) THEN pg_catalog.pg_backend_pid()",
		"WHEN $2::bigint IS NOT NULL THEN pg_catalog.pg_backend_pid()"}},
		"none", []string{"held by nobody"}, 10},
	{"a release says that all was well, although the session was gone", []edit{{"pglock", "release",
		"tn.destroy(explain(err, false))\nreturn h.over()",
		"tn.destroy(explain(err, false)); return nil"}},
		"terminate", []string{"mutex", "readers-writer"}, 25},
	{"exclusive locks are shared", []edit{{"db", "TryAcquireWith",
		"WHEN CASE WHEN $9::boolean THEN pg_catalog.pg_try_advisory_lock_shared($10::bigint) ELSE pg_catalog.pg_try_advisory_lock($10) END",
		"WHEN CASE WHEN $9::boolean THEN pg_catalog.pg_try_advisory_lock_shared($10::bigint) ELSE pg_catalog.pg_try_advisory_lock_shared($10) END"}},
		"none", []string{"mutex", "readers-writer"}, 10},
	{"readers lock nothing", []edit{{"db", "TryAcquireWith",
		"WHEN CASE WHEN $9::boolean THEN pg_catalog.pg_try_advisory_lock_shared($10::bigint) ELSE pg_catalog.pg_try_advisory_lock($10) END",
		"WHEN CASE WHEN $9::boolean THEN true ELSE pg_catalog.pg_try_advisory_lock($10::bigint) END"}},
		"none", []string{"readers-writer"}, 10},
	{"half of the processes have keys of their own", []edit{{".", "KeyOf",
		"Key(h.sum())", "Key(h.sum() ^ uint64(os__.Getpid()&1))"}},
		"none", []string{"mutex", "readers-writer"}, 10},
	{"the fence is the session's, not the grant's", []edit{{"pglock", "grant",
		"h.info.Fence = uint64(row.answer)",
		"h.info.Fence = uint64(row.answer); if row.answer > 0 { h.info.Fence = uint64(h.pid) }"}},
		"none", []string{"fence"}, 10},
	{"a fence that was asked for is not given", []edit{{"pglock", "grant",
		"h.info.Fence = uint64(row.answer)",
		"h.info.Fence = 0"}},
		"none", []string{"fence"}, 10},
	{"the fence is taken before the grant", []edit{{"db", "TryAcquireWith",
		"WHEN $6::boolean AND pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN -3",
		"WHEN $6::boolean AND (pg_current_xact_id() IS NULL OR pg_sleep(0.1 * random()) IS NULL) THEN -3"}},
		"none", []string{"fence"}, 10},
	{"the audit closes its row after the unlock", []edit{{"db", "ReleaseAudited",
		"SET released_at = GREATEST(refreshed_at, pg_catalog.clock_timestamp()),",
		"SET released_at = GREATEST(refreshed_at, pg_catalog.clock_timestamp()) + interval '40 milliseconds',"}},
		"none", []string{"audit"}, 10},
	{"the audit leaves the rows of the dead open", []edit{{"db", "CloseDead",
		"AND a.id OPERATOR(pg_catalog.=) o.id", "AND a.id = o.id AND a.id < 0"}},
		"kill", []string{"audit"}, 10},
	{"a fenced grant does not wait for the disk", []edit{{"db", "TryAcquireWith",
		"WHEN pg_catalog.pg_logical_emit_message(true, 'swanlock', ''::varchar) IS NOT NULL\nTHEN pg_catalog.int8pl(",
		"ELSE pg_catalog.int8pl("}},
		"restart", []string{"fence"}, 20},
	{"a waiter believes that no ticket is ahead", []edit{{"pglock", "ticket.enter",
		"t.ahead.Store(t.number - 1)",
		"t.ahead.Store(0)"}},
		"cancel", []string{"line"}, 20},
	{"a holder is told after its connection was closed", []edit{
		{"pglock/internal/oneconn", "Conn.End", "told()\nif on, ok := driverConn.(driver.Conn); ok {\nspeakLast(&Conn{conn: c.conn, text: c.text, on: on}, last)\non.Close()\nclosed <- nil\n}",
			"if on, ok := driverConn.(driver.Conn); ok { speakLast(&Conn{conn: c.conn, text: c.text, on: on}, last); on.Close(); time.Sleep(300 * time.Millisecond); told(); closed <- nil }"}},
		"rollback", []string{"mutex", "readers-writer"}, 20},
	{"a lease that a rollback brings back is not counted on", []edit{{"pglock", "lowerFloor",
		"s.floor = ttl", "_ = ttl"}},
		"rollback", []string{"mutex", "readers-writer"}, 20},
	{"the lease that a rollback brought back is not mended", []edit{{"pglock", "sawWitness",
		"witness != s.witness()", "false"}},
		"rollback", []string{"mutex", "readers-writer"}, 20},
	{"the waiter has no lease", []edit{{"pglock", "leasePlace",
		"p := &placeLease{ttl: placeTTL(tn, r), unasked: r.TTL == 0}",
		"p := &placeLease{ttl: 0 * placeTTL(tn, r)}"}},
		"stop", []string{"held by nobody"}, 90},
	{"a session is given up when a statement is late", []edit{{"pglock", "ledger.Silent",
		"more = max(more, maxSilence-since)", "_ = maxSilence"}},
		"pause", []string{"spared"}, 12},
	{"a pool's session keeps no lease", []edit{{"pglock", "opening.begin",
		"params = timeouts{}.of(wanted).idleInTransaction",
		"params = \"\""}},
		"stop", []string{"held by nobody"}, 20},
	{"a pool does not know what it holds itself", []edit{
		{"pglock", "registry.claim", "c != nil && !(c.shared && h.Shared)", "c != nil && c.n > 1000"},
		{"pglock", "batcher.taken", "b.led.held(o.h.key) != nil || !o.h.Shared && b.s.p.keys.claimants(o.h.key) > 1", "false && b.s.p.keys.claimants(o.h.key) > 1"}},
		"none", []string{"mutex", "readers-writer"}, 20},
	{"a batch closes its rows after the unlocks", []edit{{"db", "BatchAudited",
		"GREATEST(u.refreshed_at, LEAST(u.released_at, c.began))",
		"GREATEST(u.refreshed_at, LEAST(u.released_at, c.began)) + interval '200 milliseconds'"}},
		"none", []string{"audit"}, 30},
	{"a batch takes its fence before its grants", []edit{{"db", "Batch",
		"SELECT s.ours AND r.released IS NOT NULL AS ours,",
		"SELECT s.ours AND r.released IS NOT NULL AND pg_current_xact_id() IS NOT NULL AND pg_sleep(0.05 * random()) IS NOT NULL AS ours,"}},
		"none", []string{"fence"}, 60},
	{"a lock is passed on past the ticket of another process", []edit{{"pglock", "waiter.canBePassedLocked",
		"me.s == s && me.isNext()",
		"me.s == s && !me.own"}},
		"none", []string{"line"}, 30},
	{"each process has places of its own", []edit{{"semaphore", "Semaphore.place",
		`fmt.Sprintf("%s/place-%d", target, i)`,
		`fmt.Sprintf("%s/place-%d-%d", target, i, os__.Getpid())`}},
		"none", []string{"places"}, 20},
}

const root = "../.."

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

// knockoutTries is how many runs each of them gets, with a seed of its own: whether
// a run meets what was taken out is chance.
const knockoutTries = 4

// TestKnockouts builds each of them and has verify try to break it.
func TestKnockouts(t *testing.T) {
	if os.Getenv(knockoutsVar) == "" {
		t.Skip("it takes minutes: make verify-knockouts")
	}
	for _, k := range knockouts {
		t.Run(k.name, func(t *testing.T) {
			exe := k.build(t)
			for seed := range knockoutTries {
				kinds := k.run(t, exe, seed+1)
				t.Logf("run %d found: %v", seed+1, kinds)
				if slices.ContainsFunc(k.want, func(kind string) bool { return kinds[kind] > 0 }) {
					return
				}
			}
			t.Errorf("in %d runs of %d s nothing of the kinds %q was found", knockoutTries, k.seconds, k.want)
		})
	}
}

// run has exe verify itself, and returns how many findings of each kind there are.
func (k knockout) run(t *testing.T, exe string, seed int) (kinds map[string]int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	dir := filepath.Join(t.TempDir(), "out")
	c := exec.Command(exe, "verify", "--embedded", "--json", "--seed", strconv.Itoa(seed), "--out", dir,
		"--duration", fmt.Sprintf("%ds", k.seconds), "--faults", k.faults)
	c.Stdout, c.Stderr = &stdout, &stderr
	err := c.Run()
	if got := c.ProcessState.ExitCode(); got != 0 && got != 1 {
		t.Fatalf("verify exits with %d (%v), want 0 or 1; stderr:\n%s", got, err, &stderr)
	}
	var report struct{ Findings []struct{ Kind, Text string } }
	if err := json.Unmarshal(stdout.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	kinds = make(map[string]int)
	for _, f := range report.Findings {
		kinds[f.Kind]++
	}
	if found := len(kinds) > 0; found != (err != nil) {
		t.Errorf("verify exits with %d after the findings %v", c.ProcessState.ExitCode(), kinds)
	}
	for _, name := range []string{"history.jsonl", "history.html"} {
		info, err := os.Stat(filepath.Join(dir, name))
		if written := err == nil && info.Size() > 0; written != (len(kinds) > 0) {
			t.Errorf("after the findings %v, %s is written: %t (%v)", kinds, name, written, err)
		}
	}
	return kinds
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
		path, err := filepath.Abs(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(path); err != nil { // go build says nothing of a replacement for what is not there
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
