package verify

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestReport: what was found is in all that is written of it, and what was not
// checked is not called in order.
func TestReport(t *testing.T) {
	s := newStory()
	a, b := s.hold(mutex, 100, 200), s.hold(mutex, 150, 250)
	s.write(b, 160, Write{ID: "w", Outcome: OK})
	s.fault(Fault{Kind: FaultStop, Proc: a.Proc}, 110, 120)
	r := Judge(s.History)
	r.Faults = []string{FaultStop, FaultKill}
	if got := r.Idle(); len(got) != 1 || got[0] != FaultKill {
		t.Errorf("the faults that never came about are %q, want kill", got)
	}

	var table, text bytes.Buffer
	if err := r.Table(&table); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"mutex           4          1          1 VIOLATIONS", "stop 1, kill 0", "nothing to look at", "2 locks granted"} {
		if !strings.Contains(table.String(), want) {
			t.Errorf("the table has no %q:\n%s", want, &table)
		}
	}
	if err := r.JSON(&text); err != nil {
		t.Fatal(err)
	}
	var got struct {
		OK       bool
		Findings []Finding
	}
	if err := json.Unmarshal(text.Bytes(), &got); err != nil || got.OK || len(got.Findings) != 1 || got.Findings[0].Kind != KindMutex {
		t.Errorf("the JSON says %+v, %v", got, err)
	}

	dir := filepath.Join(t.TempDir(), "new")
	if err := r.WriteHistory(dir); err != nil {
		t.Fatal(err)
	}
	lines, err := os.ReadFile(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`{"finding":{"kind":"mutex"`, `{"hold":{"ID":"` + a.ID + `"`, `{"fault":{"Kind":"stop"`} {
		if !strings.Contains(string(lines), want) {
			t.Errorf("the history has no %s", want)
		}
	}
	picture, err := os.ReadFile(filepath.Join(dir, "history.html"))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"lock " + a.ID, "unlock " + b.ID, `"Tag":"faults"`, `"Tag":"findings"`, "write w #2"} {
		if !strings.Contains(string(picture), want) {
			t.Errorf("the picture has no %s", want)
		}
	}

	unknown := Result{Kind: KindMutex, Checked: 9, Unknown: 2}
	if got := unknown.verdict(); !strings.Contains(got, "unknown") || strings.HasPrefix(got, "ok") {
		t.Errorf("histories that could not be judged are called %q", got)
	}
	if got := (&Report{Results: []Result{unknown}}).Unknown(); got != 2 {
		t.Errorf("got %d unknown, want 2", got)
	}
}
