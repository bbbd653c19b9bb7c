package pginspect_test

import (
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pginspect"
)

// TestPartitions: the statements of docs/auditing.md make a table of which the
// audit, the history and prune work as before, and lose no row.
func TestPartitions(t *testing.T) {
	text, err := os.ReadFile("../docs/auditing.md")
	must(t, err)
	statements := regexp.MustCompile("(?s)```sql\n(.*?)```").FindStringSubmatch(string(text))
	if statements == nil {
		t.Fatal("the document has no SQL")
	}
	eachDriver(t, func(t *testing.T, driver string) {
		database := newDatabase(t)
		on := connect(t, driver, database)
		must(t, migrate(on))
		addRow(t, on, "old", "me", 100*24*time.Hour, time.Minute)
		addRow(t, on, "t", "me", time.Hour, time.Minute)
		_, open := acquire(t, on, "open", audited)
		exec(t, connect(t, "postgres", database), statements[1])

		must(t, open.Refresh(bg))
		must(t, open.Release(bg))
		_, held := acquire(t, on, "t", audited, swanlock.WithTTL(time.Minute))
		must(t, held.Refresh(bg))
		want(t, "kind", of(t, on, "t")[0].Kind, pginspect.Audited)
		page, err := pginspect.History(bg, on, pginspect.Query{})
		must(t, err)
		var got []string
		for _, r := range page.Records {
			got = append(got, r.Target+":"+string(r.State)+":"+r.End)
		}
		if want := "[t:held: open:ended:released t:ended:released old:ended:released]"; len(got) != 4 || want != sprint(got) {
			t.Errorf("the history is %v, want %s", got, want)
		}
		records, err := pginspect.HeldAt(bg, on, time.Now().Add(-59*time.Minute-30*time.Second))
		must(t, err)
		want(t, "held then", len(records), 1)
		killed, err := pginspect.Kill(bg, on, of(t, on, "t")[0].Session, "ann")
		must(t, err)
		want(t, "rows killed", killed.Rows, 1)
		done, err := pginspect.Prune(bg, on, pginspect.PruneQuery{Before: time.Now().Add(-90 * 24 * time.Hour)})
		must(t, err)
		want(t, "pruned", done.Deleted, int64(1))
		r, err := pginspect.Check(bg, on)
		must(t, err)
		want(t, "the doctor", finding(r, "audit").Level, pginspect.OK)
	})
}
