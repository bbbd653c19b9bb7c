//go:build unix

package pgserver

import (
	"archive/zip"
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/user"
	"path/filepath"
	"strings"
	"testing"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// programs makes a folder with the programs of the given names and contents.
func programs(t *testing.T, dir string, files map[string]string) string {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// whole is what a folder with a PostgreSQL has.
var whole = map[string]string{"initdb": "", "postgres": ""}

// noPostgreSQL hides the machine's PostgreSQL, save for its usual folders below the one returned.
func noPostgreSQL(t *testing.T) string {
	root := t.TempDir()
	t.Setenv(BinEnv, "")
	t.Setenv("PATH", filepath.Join(root, "path"))
	old := usualFolders
	t.Cleanup(func() { usualFolders = old })
	usualFolders = nil
	for _, f := range old {
		usualFolders = append(usualFolders, root+f)
	}
	return root
}

func TestFindBinaries(t *testing.T) {
	root := noPostgreSQL(t)
	check := func(name, want string) {
		t.Helper()
		if got, err := findBinaries(t.Context(), ""); err != nil || got != want {
			t.Errorf("%s: got %q, %v, want %q", name, got, err, want)
		}
	}
	// From the last resort to the first.
	check("nothing", "")
	usual := filepath.Join(root, "usr/lib/postgresql")
	programs(t, filepath.Join(usual, "18", "bin"), map[string]string{"initdb": ""}) // only a client's
	check("not whole", "")
	nine := programs(t, filepath.Join(usual, "9.6", "bin"), whole)
	check("usual folder", nine)
	sixteen := programs(t, filepath.Join(usual, "16", "bin"), whole)
	programs(t, filepath.Join(usual, "15", "bin"), whole)
	check("newest", sixteen)
	seventeen := programs(t, filepath.Join(root, "opt/homebrew/opt/postgresql@17/bin"), whole)
	check("newest of another system's", seventeen)
	path := programs(t, filepath.Join(root, "path"), whole)
	check("PATH", path)
	configured := filepath.Join(root, "configured")
	programs(t, path, map[string]string{"pg_config": "echo " + configured})
	check("pg_config of no server", path)
	programs(t, configured, whole)
	check("pg_config", configured)
	variable := programs(t, filepath.Join(root, "variable"), whole)
	t.Setenv(BinEnv, variable)
	check("variable", variable)
	asked := programs(t, filepath.Join(root, "asked"), whole)
	if got, err := findBinaries(t.Context(), asked); err != nil || got != asked {
		t.Errorf("asked: got %q, %v, want %q", got, err, asked)
	}
	t.Chdir(root)
	t.Setenv(BinEnv, "variable")
	check("relative variable", variable)
}

func TestWrongBinariesAreRefused(t *testing.T) {
	client := programs(t, t.TempDir(), map[string]string{"initdb": ""})
	noProgram := programs(t, t.TempDir(), whole)
	if err := os.Chmod(filepath.Join(noProgram, "postgres"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"/no/such/folder", client, noProgram} {
		temp := openTemp(t)
		t.Setenv(BinEnv, dir)
		s, err := Start(t.Context())
		if err == nil {
			stop(t, s)
			t.Errorf("%s=%s: started", BinEnv, dir)
		} else if !strings.Contains(err.Error(), BinEnv+"="+dir) {
			t.Errorf("%s=%s: the error does not name it: %v", BinEnv, dir, err)
		}
		t.Setenv(BinEnv, "")
		if s, err := Start(t.Context(), WithBinaries(dir)); err == nil {
			stop(t, s)
			t.Errorf("WithBinaries(%s): started", dir)
		}
		checkEmpty(t, temp)
	}
}

// Where there is no PostgreSQL, the one that embedded-postgres fetches is run, as the server's account.
func TestFetchBinaries(t *testing.T) {
	programs, err := os.ReadFile("testdata/programs.txz")
	if err != nil {
		t.Fatal(err)
	}
	repository := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/repository/") || !strings.HasSuffix(r.URL.Path, ".jar") {
			http.NotFound(w, r)
			return
		}
		var jar bytes.Buffer
		z := zip.NewWriter(&jar)
		f, _ := z.Create("programs.txz")
		f.Write(programs)
		z.Close()
		io.Copy(w, &jar)
	}))
	defer repository.Close()
	defer http.DefaultClient.CloseIdleConnections()
	noPostgreSQL(t)
	temp := openTemp(t)
	fetch := func(url string) string {
		t.Helper()
		config := embeddedpostgres.DefaultConfig().CachePath(t.TempDir()).BinaryRepositoryURL(url)
		s, err := Start(t.Context(), func(o *options) { o.embedded = config })
		if err == nil {
			stop(t, s)
			t.Fatal("started")
		}
		checkEmpty(t, temp)
		return err.Error()
	}
	if err := fetch(repository.URL + "/none"); !strings.Contains(err, "install PostgreSQL") {
		t.Errorf("the error does not say what to do: %s", err)
	}
	acc, err := unprivileged()
	if err != nil {
		t.Fatal(err)
	}
	self, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	name := self.Username
	if acc != nil {
		name = acc.name
	}
	// The library itself, which would start a server next, must not have got so far.
	want := fmt.Sprintf("run 1 of the archive's initdb, as %s, a program of %[1]s\n", name)
	if err := fetch(repository.URL + "/repository"); !strings.Contains(err, want) {
		t.Errorf("want %q in the error: %s", want, err)
	}
}
