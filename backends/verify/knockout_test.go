package verify

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A knockout is a locker with one guarantee taken out. The history must show it.
type knockout struct {
	subject, name string
	faults        string
	file          string // below the root of the repository
	old, new      string // old is in the file once
	want          []string
}

var (
	twoHolders = []string{"mutex", "readers-writer", "register"}
	lowFence   = []string{"fence", "register"}
	neverFree  = []string{"held by nobody", "stuck"}
)

var knockouts = []knockout{
	{"memlock", "everybody is admitted", "cancel", "memlock/lock.go",
		"return len(ln.holders) == 0 ||", "return true ||", twoHolders},
	{"memlock", "the fence does not rise", "cancel", "memlock/lock.go",
		"k.space.fence++", "k.space.fence = 1", lowFence},
	{"filelock", "a holder is not found to have died", "kill", "filelock/line.go",
		"dead, err := tryFlock(f, true); dead || err != nil", "dead := false; dead || err != nil", neverFree},
	{"filelock", "the lease of a waiter counts from when it came", "cancel", "filelock/claim.go",
		"if err := c.sign(l.now); err != nil {\n		return \"\", err\n	}\n	l.entries", "l.entries", twoHolders},
	{"leaselock", "the lease counts from the answer", "network-late", "internal/lease/acquire.go",
		"fence, err := acquire(call)", "fence, err := acquire(call)\n	start = time.Now()", twoHolders},
	{"leaselock", "a release frees the lock of any holder", "cancel", "db/lease.sql.go",
		"NULL\nWHERE key OPERATOR(pg_catalog.=) $1::bigint AND token OPERATOR(pg_catalog.=) $2::varchar",
		"NULL\nWHERE key OPERATOR(pg_catalog.=) $1::bigint AND $2::varchar IS NOT NULL", twoHolders},
	{"leaselock", "the table does not outlive a crash", "server-restart", "leaselock/migrations/00001_lock_leases.sql",
		"CREATE TABLE", "CREATE UNLOGGED TABLE", twoHolders},
	{"redislock", "a server that has restarted votes at once", "server-forgets", "backends/redislock/acquire.lua",
		"if holder or quarantine or head", "if holder or head", twoHolders},
	{"redislock", "a release frees the lock of any holder", "cancel", "backends/redislock/release.lua",
		"held = KEYS[4], holder == value", "held = KEYS[4], holder and true", twoHolders},
	{"redislock-of-3", "the servers keep a lock for half its lease", "cancel", "backends/redislock/redislock.go",
		"return d + d/100 + 2*time.Millisecond", "return d / 2", twoHolders},
	{"redislock-of-3", "one vote is enough", "cancel", "backends/redislock/attempt.go",
		"n, quorum := len(a.sent), len(a.sent)/2+1\n	var granted", "n, quorum := len(a.sent), 1\n	var granted", twoHolders},
	{"etcdlock", "a waiter that gives up tells the next one to go on", "cancel", "backends/etcdlock/entry.go",
		"e.granted && !e.o.Shared", "!e.o.Shared", twoHolders},
	{"etcdlock", "a waiter takes the end of the key before it for its turn", "cancel", "backends/etcdlock/wait.go",
		"there, err = e.look(ctx)\n			if err != nil || !there ||", "if len(resp.Events) > 0 {\n				return e.after(ctx, true)\n			}\n			there, err = e.look(ctx)\n			if err != nil || !there ||", twoHolders},
	{"etcdlock", "an acquire without an answer is taken for granted", "network-reset", "backends/etcdlock/entry.go",
		"verr != nil || !there", "verr != nil && !there", twoHolders},
	{"consullock", "a release frees the lock of any holder", "cancel", "backends/consullock/hold.go",
		"h.check(), {KV: &api.KVTxnOp{Verb: api.KVDelete", "{KV: &api.KVTxnOp{Verb: api.KVDelete", twoHolders},
	{"consullock", "an acquire without an answer is taken for granted", "network-reset", "backends/consullock/hold.go",
		"verr != nil || pair == nil || pair.Session != h.session", "verr != nil || pair == nil", twoHolders},
}

const root = "../.."

// TestKnockoutsApply: the list fits the code.
func TestKnockoutsApply(t *testing.T) {
	for _, k := range knockouts {
		if _, err := k.apply(); err != nil {
			t.Errorf("%s: %s: %v", k.subject, k.name, err)
		}
	}
}

func (k knockout) apply() (text string, err error) {
	b, err := os.ReadFile(filepath.Join(root, k.file))
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(b), k.old); n != 1 {
		return "", fmt.Errorf("%s has the code %d times, want once", k.file, n)
	}
	return strings.Replace(string(b), k.old, k.new, 1), nil
}

// TestKnockouts builds this test with each of them, by an overlay, and runs it: it
// must fail, with a finding of one of the kinds that are wanted.
func TestKnockouts(t *testing.T) {
	if os.Getenv("SWANLOCK_KNOCKOUTS") == "" {
		t.Skip("it takes minutes: make verify-backends-knockouts")
	}
	for _, k := range knockouts {
		t.Run(k.subject+"/"+k.name, func(t *testing.T) {
			program := k.build(t)
			var out []byte
			for n := range 5 { // A rare chance, or a busy machine, may take more than one.
				c := exec.Command(program, "-test.run", "TestBackends/^"+k.subject+"$", "-test.v", "-test.count", "1")
				c.Env = append(os.Environ(), fmt.Sprintf("%s=%ds", durationVar, 20*(n+1)), faultsVar+"="+k.faults)
				out, _ = c.CombinedOutput()
				for _, kind := range k.want {
					if strings.Contains(string(out), "found: "+kind+": ") {
						t.Logf("found: %s", kind)
						return
					}
				}
			}
			t.Errorf("not found:\n%s", out)
		})
	}
}

func (k knockout) build(t *testing.T) (program string) {
	t.Helper()
	text, err := k.apply()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file, err := filepath.Abs(filepath.Join(root, k.file))
	if err != nil {
		t.Fatal(err)
	}
	broken, list := filepath.Join(dir, "broken"+filepath.Ext(k.file)), filepath.Join(dir, "overlay.json")
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {file: broken}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{broken: []byte(text), list: overlay} {
		if err := os.WriteFile(name, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	program = filepath.Join(dir, "verify.test")
	if out, err := exec.Command("go", "test", "-c", "-overlay", list, "-o", program, ".").CombinedOutput(); err != nil {
		t.Fatalf("go test -c: %v\n%s", err, out)
	}
	return program
}
