package db

import (
	"strings"
	"testing"
)

func TestOneLine(t *testing.T) {
	for query, want := range map[string]string{
		"-- name: X :one\nSELECT 1,\n\t 2 -- two\n  FROM x": "SELECT 1, 2 FROM x",
		"SELECT ' -- \n it''s  ', \"a  --b\"  , 3":          "SELECT ' -- \n it''s  ', \"a  --b\" , 3",
		"SELECT 1 - -1 --":   "SELECT 1 - -1",
		"a--x\nb":            "a b",
		"  \n":               "",
		"SELECT 'unfinished": "SELECT 'unfinished",
		"SELECT 1":           "SELECT 1",
	} {
		for range 2 { // the second time from memory
			if got := OneLine(query); got != want {
				t.Errorf("OneLine(%q) is %q, want %q", query, got, want)
			}
		}
	}
	for _, query := range []string{Mark, TryAcquire, TryAcquireAudited, Turn, TakeTicket, CloseDead, Batch} {
		if line := OneLine(query); strings.ContainsAny(line, "\n\t") || strings.Contains(line, "--") || strings.Contains(line, "  ") || len(line) < 100 {
			t.Errorf("%q is not on one line", line)
		}
	}
}
