//go:build unix

package testserver

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"testing"
)

// TestTestIsKilled kills a test's process. Its server's folder goes with it; one that
// is restarted keeps its own.
func TestTestIsKilled(t *testing.T) {
	const file = "data"
	program, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	s := Start(t, func() error { return nil }, program, "1000")
	if link := os.Getenv("TESTSERVER_FOLDER"); link != "" {
		if err := os.Symlink(s.dir, link); err != nil {
			t.Fatal(err)
		}
		Hold()
	}
	if err := os.WriteFile(s.dir+"/"+file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	s.Restart()
	if _, err := os.Stat(s.dir + "/" + file); err != nil {
		t.Errorf("a server that was restarted has lost its data: %v", err)
	}

	link := t.TempDir() + "/folder"
	kill := HeldByChild(t, "TESTSERVER_FOLDER", link)
	folder, err := os.Readlink(link)
	if err != nil {
		t.Fatal(err)
	}
	kill()
	Eventually(t, "the folder is gone", func() error {
		if _, err := os.Stat(folder); !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("Stat: %v", err)
		}
		return nil
	})
}

// TestFreeAddr asks for addresses on which nobody listens yet. No two are the same.
func TestFreeAddr(t *testing.T) {
	given := map[string]bool{}
	for range 500 {
		addr := FreeAddr(t)
		if given[addr] {
			t.Errorf("%s was given twice", addr)
		}
		given[addr] = true
	}
}
