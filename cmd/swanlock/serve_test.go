package main

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestParseServe(t *testing.T) {
	o, err := parseServe(strings.Fields("--listen :80 --token-file f --host a.example --host b"))
	if err != nil || o.listen != ":80" || o.tokenFile != "f" || strings.Join(o.hosts, " ") != "a.example b" {
		t.Errorf("got %+v, %v", o, err)
	}
	if o, err := parseServe(nil); err != nil || o.listen != serveListen {
		t.Errorf("got %+v, %v", o, err)
	}
	for _, args := range []string{"x", "--listen 7926", "--listen", "--host http://a/", "--host a:80", "--token secret"} {
		code, out, complaint := runHere(append([]string{"serve"}, strings.Fields(args)...)...)
		if code != exitUsage || out != "" || !strings.HasPrefix(complaint, "swanlock: serve: ") {
			t.Errorf("serve %s: %d, %q, %q", args, code, out, complaint)
		}
	}
}

// TestServeNeedsToken: an address that others can reach needs a token, a long
// one, and no complaint shows it.
func TestServeNeedsToken(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct {
		env  string
		args []string
		code int
		says string
	}{
		{"", []string{"--listen", "0.0.0.0:0"}, exitUsage, "needs a token"},
		{"", []string{"--listen", ":0"}, exitUsage, "needs a token"},
		{"hunter2", nil, exitConfig, "SWANLOCK_WEB_TOKEN has fewer than 16"},
		{"", []string{"--token-file", file("short", "hunter2\n")}, exitConfig, "the token file has fewer than 16"},
		{"long-enough-a-token", []string{"--token-file", file("empty", "\n")}, exitConfig, "the token file is empty"},
		{"", []string{"--token-file", filepath.Join(dir, "none")}, exitConfig, "no such file"},
	} {
		p := swanlockCommand(t, []string{tokenVar + "=" + tt.env, "NO_SERVER=1"}, append([]string{"serve"}, tt.args...)...).start()
		p.want(tt.code).says(tt.says)
		if strings.Contains(p.stderr.String(), "hunter2") {
			t.Errorf("the token is shown: %s", &p.stderr)
		}
	}
	swanlockCommand(t, []string{"NO_SERVER=1"}, "serve", "--listen", "127.0.0.1:0").start().want(exitConfig).says("no PostgreSQL server")
}

// TestServe: it prints its address, answers there, and ends with 0 on SIGTERM,
// though a page is open.
func TestServe(t *testing.T) {
	for _, token := range []string{"", "0123456789abcdef"} {
		p := swanlockCommand(t, []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION=" + migrated(t), tokenVar + "=" + token}, "serve", "--listen", "127.0.0.1:0")
		p.Stdout = nil
		out, err := p.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		p.start()
		line := make([]byte, 100)
		n, err := out.Read(line)
		if err != nil {
			t.Fatal(err, &p.stderr)
		}
		url := strings.TrimSpace(string(line[:n]))
		get := func(path string) (*http.Response, error) {
			r, err := http.NewRequest("GET", url+path, nil)
			if err != nil {
				return nil, err
			}
			r.Header.Set("Authorization", "Bearer "+token)
			return http.DefaultClient.Do(r)
		}
		answer, err := get("")
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || answer.StatusCode != 200 || !strings.Contains(string(text), "postgres on 127.0.0.1:") {
			t.Errorf("%s: %d, %v\n%.500s", url, answer.StatusCode, err, text)
		}
		if kills := strings.Contains(string(text), "<dialog"); kills != (token != "") {
			t.Errorf("with the token %q: it can end sessions: %v", token, kills)
		}
		stream, err := get("api/events")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Body.Read(line); err != nil || !strings.HasPrefix(string(line), "data: {") {
			t.Errorf("the stream begins with %.20q, %v", line, err)
		}
		_ = p.Process.Signal(syscall.SIGTERM)
		p.want(0)
		stream.Body.Close()
		http.DefaultClient.CloseIdleConnections()
		if p.stderr.Len() > 0 {
			t.Errorf("it says %s", &p.stderr)
		}
	}
}
