//go:build unix

package pgserver

import (
	"os"
	"path/filepath"
	"testing"
)

// A server that starts with a copy of another's cluster is as one that initdb made, and what the first did is not in it.
func TestTemplate(t *testing.T) {
	folder := t.TempDir()
	t.Setenv(TemplateEnv, folder)
	first := start(t)
	db := open(t, "pgx", first.URL())
	if _, err := db.Exec("CREATE TABLE only_in_the_first ()"); err != nil {
		t.Fatal(err)
	}
	kept, _ := filepath.Glob(filepath.Join(folder, "*"))
	if len(kept) != 1 {
		t.Fatalf("%q is in the folder, want one cluster", kept)
	}
	made, err := os.Stat(kept[0])
	if err != nil {
		t.Fatal(err)
	}

	second := start(t, WithSetting("idle_session_timeout", "4711"))
	other := open(t, "pgx", second.URL())
	for _, tt := range []struct{ question, want string }{
		{"SELECT system_identifier::text FROM pg_control_system()", query(t, db, "SELECT system_identifier::text FROM pg_control_system()")},
		{"SELECT to_regclass('only_in_the_first') IS NULL", "true"},
		{"SHOW idle_session_timeout", "4711ms"},
		{"SHOW server_encoding", "UTF8"},
	} {
		if got := query(t, other, tt.question); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.question, got, tt.want)
		}
	}
	stop(t, second)
	if still, err := os.Stat(kept[0]); err != nil || !os.SameFile(made, still) {
		t.Errorf("the cluster that servers are copied from is another now: %v, %v", still, err)
	}
}
