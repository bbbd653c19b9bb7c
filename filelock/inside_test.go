//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTakeAway: a file that came in the place of the stale one is left where it is.
func TestTakeAway(t *testing.T) {
	dir := t.TempDir()
	l := &line{place: place{dir: dir, name: "t.lock"}}
	if err := os.MkdirAll(l.alive(""), 0o777); err != nil {
		t.Fatal(err)
	}
	for _, same := range []bool{true, false} {
		write := func(s string) {
			if err := os.WriteFile(l.file(), []byte(s), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		write("stale")
		_, st, err := read(l.file())
		if err != nil {
			t.Fatal(err)
		}
		if !same {
			if err := os.Rename(l.file(), filepath.Join(dir, "elsewhere")); err != nil { // keeps its number from being used again
				t.Fatal(err)
			}
			write("another's")
		}
		if gone, err := l.takeAway(st); gone != same || err != nil {
			t.Errorf("the same: %t: got %t, %v", same, gone, err)
		}
		if b, err := os.ReadFile(l.file()); !same && string(b) != "another's" || (err != nil) != same {
			t.Errorf("the same: %t: now there is %q, %v", same, b, err)
		}
		if names, _ := filepath.Glob(filepath.Join(dir, stateDir, "*")); len(names) != 1 {
			t.Errorf("left: %v", names)
		}
	}
}

func TestFindMount(t *testing.T) {
	table := strings.Join([]string{
		`22 1 254:0 / / rw,relatime - ext4 /dev/vda rw`,
		`30 22 0:40 / /srv/my\040lake rw,relatime shared:9 master:1 - nfs4 host:/lake rw,vers=4.2,local_lock=none`,
		`31 22 0:41 / /srv rw - nfs host:/srv rw,vers=3,nolock,local_lock=all`,
	}, "\n")
	for dir, want := range map[string]string{
		"/":                "ext4 rw",
		"/srvx":            "ext4 rw",
		"/srv":             "nfs rw,vers=3,nolock,local_lock=all",
		"/srv/a":           "nfs rw,vers=3,nolock,local_lock=all",
		"/srv/my lake/a/b": "nfs4 rw,vers=4.2,local_lock=none",
	} {
		if got := findMount(table, dir); got != want {
			t.Errorf("%s: got %q, want %q", dir, got, want)
		}
		if got, want := unsafeOption(findMount(table, dir)) != "", strings.Contains(want, "nolock"); got != want {
			t.Errorf("%s: unsafe: got %t, want %t", dir, got, want)
		}
	}
}
