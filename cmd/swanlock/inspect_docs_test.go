package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

// TestDocsShowTheTables: the tables in docs have the columns that the commands
// print, and what doctor says there is what it says.
func TestDocsShowTheTables(t *testing.T) {
	shown := 0
	for _, name := range []string{"operating.md", "auditing.md"} {
		text, err := os.ReadFile("../../docs/" + name)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range regexp.MustCompile(`(?m)^    ((?:TARGET|ACQUIRED) .*)$`).FindAllStringSubmatch(string(text), -1) {
			shown++
			columns := lockTable(nil, nil, colours{}).columns
			if strings.HasPrefix(line[1], "ACQUIRED") {
				columns = recordsTable(nil, time.Time{}, colours{}).columns
			}
			last := -1
			for _, got := range regexp.MustCompile(` {2,}`).Split(line[1], -1) {
				i := slices.IndexFunc(columns, func(c column) bool { return c.name == got })
				if i <= last && !strings.Contains(got, " ") {
					t.Errorf("%s shows the column %q, which the command does not print there", name, got)
				}
				last = max(last, i)
			}
		}
	}
	if shown != 3 {
		t.Errorf("the documents show %d tables, want 3", shown)
	}
	report, err := pginspect.Check(t.Context(), openDB(t, migrated(t)))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("../../docs/operating.md")
	if err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`\d+`)
	for _, f := range report.Findings {
		if said := number.ReplaceAllString(f.Is, "N"); slices.Contains([]string{"pooler", "primary", "lock table", "sessions", "timeouts", "dead clients"}, f.Subject) &&
			!strings.Contains(number.ReplaceAllString(string(text), "N"), said) {
			t.Errorf("operating.md does not have what doctor says of %s: %q", f.Subject, said)
		}
	}
}
