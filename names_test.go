package swanlock_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestDocumentsNameWhatIsExported: what the documents name of our packages is there:
// functions, types, methods, fields.
func TestDocumentsNameWhatIsExported(t *testing.T) {
	exported := map[string]map[string]bool{} // names, by package
	for name, text := range texts(t, ".go") {
		if strings.HasSuffix(name, "_test.go") || strings.Contains(name, "internal/") {
			continue
		}
		file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		names := exported[file.Name.Name]
		if names == nil {
			names = map[string]bool{}
			exported[file.Name.Name] = names
		}
		ast.Inspect(file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncDecl:
				names[n.Name.Name] = true
				return false
			case *ast.TypeSpec:
				names[n.Name.Name] = true
			case *ast.ValueSpec:
				for _, id := range n.Names {
					names[id.Name] = true
				}
			case *ast.Field:
				for _, id := range n.Names {
					names[id.Name] = true
				}
			}
			return true
		})
	}
	delete(exported, "db") // in the documents it is a *sql.DB
	named := 0
	documents := texts(t, ".md")
	for _, name := range slices.Sorted(maps.Keys(documents)) {
		if path.Base(name) == "CHANGELOG.md" { // what it tells was so once
			continue
		}
		text := regexp.MustCompile(`go-pglock: .*`).ReplaceAllString(documents[name], "") // another library
		for _, ref := range regexp.MustCompile(`\b([a-z]+)((?:\.[A-Z]\w*)+)`).FindAllStringSubmatch(text, -1) {
			names, ours := exported[ref[1]]
			if !ours {
				continue
			}
			for part := range strings.SplitSeq(ref[2][1:], ".") {
				if named++; !names[part] {
					t.Errorf("%s names %s%s, and there is no %s", name, ref[1], ref[2], part)
				}
			}
		}
	}
	if named < 100 {
		t.Errorf("got %d names, want 100 at least: is this looking at the right files?", named)
	}
}
