package swanlock_test

import (
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestModulesAreInstalled: the documents say how to get each kind of module of its
// own from a checkout, by commands whose folders are those modules.
func TestModulesAreInstalled(t *testing.T) {
	const module = "github.com/swanlake-io/swanlock"
	found, err := filepath.Glob("*/*/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	kinds := map[string]bool{}
	for _, file := range found {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if dir := path.Dir(filepath.ToSlash(file)); strings.Contains(string(text), "module "+module+"/"+dir+"\n") {
			kinds[path.Dir(dir)] = true
		}
	}
	for _, ours := range []string{"tools", "lockweb"} { // for those who work on swanlock
		delete(kinds, ours)
	}
	if len(kinds) != 3 {
		t.Fatalf("got the kinds of modules %q, want adapters, backends and metrics", slices.Sorted(maps.Keys(kinds)))
	}
	documents := texts(t, ".md")
	for name, text := range documents {
		for _, line := range regexp.MustCompile(`-replace `+module+`(/\S+)?=\.\./swanlock(\S*)`).FindAllStringSubmatch(text, -1) {
			mod, err := os.ReadFile(filepath.Join(".", line[2], "go.mod"))
			if err != nil || line[1] != line[2] || !strings.Contains(string(mod), "module "+module+line[1]+"\n") {
				t.Errorf("%s replaces %s by the folder ..%s, which is not that module: %v", name, module+line[1], line[2], err)
			}
			if !strings.Contains(text, "-require "+module+line[1]+"@v0.0.0") {
				t.Errorf("%s replaces %s and does not require it", name, module+line[1])
			}
			delete(kinds, path.Dir(strings.TrimPrefix(line[1], "/")))
		}
	}
	for kind := range kinds {
		t.Errorf("no document says how to get a module of %s from a checkout", kind)
	}
}
