package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/internal/verify"
)

func TestParseVerify(t *testing.T) {
	o, err := parseVerify([]string{"--dsn", "host=db"})
	if err != nil {
		t.Fatal(err)
	}
	if got := o.faults; slices.ContainsFunc(got, verify.NeedsOwnServer) || len(got) != len(verify.AllFaults)-2 {
		t.Errorf("with --dsn all faults are %q, want all but restart and pause", got)
	}
	if o.seed == 0 || !strings.HasPrefix(o.out, "swanlock-verify-") || o.duration != 30*time.Second || o.workers != 4 {
		t.Errorf("defaults: %+v", o)
	}
	for _, tt := range []struct {
		args string
		says string // "": no error
	}{
		{"--embedded", ""},
		{"--embedded --faults kill,cut --seed 7 --workers 2 --duration 1m --json --out x", ""},
		{"--embedded --faults none", ""},
		{"", "either --embedded"},
		{"--embedded --dsn host=db", "either --embedded"},
		{"--dsn host=db --faults kill,restart", "restart needs --embedded"},
		{"--dsn host=db --faults pause", "pause needs --embedded"},
		{"--embedded --faults kill,fire", `"fire" is not a fault`},
		{"--embedded --faults=", "--faults is empty"},
		{"--embedded --faults kill,", `"" is not a fault`},
		{"--embedded --duration 10ms", "--duration 10ms"},
		{"--embedded --workers 0", "--workers 0"},
		{"--embedded --seed x", "seed"},
		{"--embedded more", "one argument too many"},
	} {
		_, err := parseVerify(strings.Fields(tt.args))
		if got := err == nil; got != (tt.says == "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("verify %s: %v, want %q", tt.args, err, tt.says)
		}
	}
	if code, _, stderr := runHere("verify"); code != 2 || !strings.HasPrefix(stderr, "swanlock: verify: give either") {
		t.Errorf("without arguments it exits with %d: %s", code, stderr)
	}
	if code, _, stderr := runHere("verify", "--dsn", "foo"); code != 2 || !strings.Contains(stderr, "verify: --dsn: is neither") {
		t.Errorf("with a connection string that is none it exits with %d: %s", code, stderr)
	}
	if code, _, stderr := runHere("verify", "--dsn", "host=127.0.0.1 port=1 dbname=x user=x"); code != 2 {
		t.Errorf("without a server it exits with %d: %s", code, stderr)
	}
}

// verified is what --json says.
type verified struct {
	OK       bool
	Unknown  int
	Counts   verify.Counts
	Faults   map[string]struct{ Done int }
	Checks   []verify.Result
	Findings []verify.Finding
}

// verifies runs verify for d, and for longer where a busy machine has not come to
// everything in that time, and checks that it found nothing.
func verifies(t *testing.T, d time.Duration, args ...string) (v verified) {
	t.Helper()
	for n := 0; ; n++ {
		out := filepath.Join(t.TempDir(), "out")
		p := swanlockCommand(t, []string{}, append([]string{"verify", "--json", "--out", out, "--duration", (d << n).String()}, args...)...).start().want(0)
		v = verified{}
		if err := json.Unmarshal(p.stdout.Bytes(), &v); err != nil {
			t.Fatalf("%v: %s", err, &p.stdout)
		}
		if !v.OK || len(v.Findings) > 0 || v.Unknown > 0 {
			t.Errorf("got findings %+v and %d unknown, want none", v.Findings, v.Unknown)
			if text, err := os.ReadFile(filepath.Join(out, "history.jsonl")); err == nil && os.Getenv("CI") == "" {
				t.Logf("history:\n%s", text[:min(len(text), 20_000)])
			}
		}
		missed := v.missed()
		if len(missed) == 0 || t.Failed() {
			return v
		}
		if n == 3 {
			t.Fatalf("nothing to look at for %v: %+v", missed, v.Counts)
		}
		t.Logf("within %v nothing to look at for %v: %+v", d<<n, missed, v.Counts)
	}
}

// missed returns what it has not come to.
func (v verified) missed() (what []string) {
	if v.Counts.Granted == 0 || v.Counts.Writes == 0 || v.Counts.Shared == 0 {
		what = append(what, "the counts")
	}
	for _, c := range v.Checks {
		if c.Checked == 0 && c.Kind != verify.KindLine && c.Kind != verify.KindSpared { // they want calm
			what = append(what, string(c.Kind))
		}
	}
	return what
}

// TestVerifyEmbedded runs it all for a few seconds, with each fault at least
// once.
func TestVerifyEmbedded(t *testing.T) {
	slow(t)
	v := verifies(t, 40*time.Second, "--embedded", "--seed", "3", "--workers", "3", "--faults", "all")
	for _, f := range verify.AllFaults {
		if v.Faults[f].Done == 0 && f != verify.FaultCancel && f != verify.FaultRollback { // the workers do these two
			t.Errorf("the fault %s never came about: %v", f, v.Faults)
		}
	}
}

// TestVerifyDSN: on a server of the user's it leaves nothing behind.
func TestVerifyDSN(t *testing.T) {
	slow(t)
	dsn := newDatabase(t)
	db := openDB(t, dsn)
	verifies(t, 6*time.Second, "--dsn", dsn, "--seed", "4", "--workers", "2")
	var schemas, locks int
	if err := db.QueryRow(`SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'swanlock%'),
		(SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).
		Scan(&schemas, &locks); err != nil || schemas != 0 || locks != 0 {
		t.Errorf("it leaves %d schemas and %d locks behind (%v), want none", schemas, locks, err)
	}
	if err := db.Ping(); err != nil {
		t.Errorf("our own session: %v", err)
	}
	// A Unix socket has no ports by which a connection could be found and cut.
	code, _, stderr := runHere("verify", "--dsn", pgserver.Default().SocketURL(), "--duration", "1s", "--faults", "cut")
	if code != 2 || !strings.Contains(stderr, "needs TCP") {
		t.Errorf("cut over a Unix socket: exit code %d, %s", code, stderr)
	}
}
