package db_test

import (
	"os"
	"strings"
	"testing"
)

// SQL has no way to share the parts that Batch and BatchAudited have in common, and the
// fence with Pass, so they stand twice, and are the same to the letter.
func TestBatchesAreAlike(t *testing.T) {
	text, err := os.ReadFile("../queries/pool.sql")
	if err != nil {
		t.Fatal(err)
	}
	queries := make(map[string]string)
	for query := range strings.SplitSeq(string(text), "-- name: ") {
		name, rest, _ := strings.Cut(query, " :")
		queries[name] = rest
	}
	for what, ends := range map[string][2]string{
		"the unlocks":        {", r AS MATERIALIZED (", "\n)"},
		"the locks":          {", a AS MATERIALIZED (", "\n)"},
		"the highest number": {", t AS MATERIALIZED (", "\n)"},
		"the ticket":         {"        SELECT CASE\n            WHEN NOT t.share", "AS ticket"},
		"the fence":          {"pg_catalog.pg_current_xact_id()", "ELSE 0"},
	} {
		var parts []string
		names := []string{"Batch", "BatchAudited"}
		if what == "the fence" {
			names = append(names, "Pass")
		}
		for _, name := range names {
			_, rest, found := strings.Cut(queries[name], ends[0])
			part, _, ended := strings.Cut(rest, ends[1])
			if !found || !ended {
				t.Fatalf("%s: no %s", name, what)
			}
			parts = append(parts, strings.Join(strings.Fields(part), " "))
		}
		for i, part := range parts {
			if part != parts[0] {
				t.Errorf("%s of Batch:\n%s\nand of %s:\n%s", what, parts[0], names[i], part)
			}
		}
	}
}
