package swanlock_test

import (
	"testing"

	"github.com/swanlake-io/swanlock/internal/snippets"
)

const module = `"github.com/swanlake-io/swanlock`

// TestDocumentsCompile: the Go in the documents is Go, with the names that there are.
func TestDocumentsCompile(t *testing.T) {
	const usual = "\"context\"\n\"database/sql\"\n" + module + "\"\n"
	for _, p := range []snippets.Page{
		{File: "docs/building.md",
			Imports: usual + "\"errors\"\n\"time\"\n" + module + "/election\"\n" + module + "/pglock\"\n" + module + "/semaphore\"\n",
			Given:   "ctx context.Context, locks swanlock.Locker, db *sql.DB, report, geocode, schedule func(context.Context) error",
			Pieces:  4},
		{File: "docs/fences.md",
			Imports: usual + module + "/pglock\"\n",
			Given:   "ctx context.Context, db *sql.DB, tx *sql.Tx, target string, held swanlock.DistributedLock",
			Pieces:  1},
		{File: "docs/moving.md",
			Imports: usual + module + "/chain\"\n" + module + "/filelock\"\n" + module + "/pglock\"\n",
			Given:   "ctx context.Context, db *sql.DB, _ swanlock.Locker",
			Pieces:  1},
		{File: "docs/testing.md",
			Imports: "\"context\"\n\"errors\"\n\"testing\"\n\"testing/synctest\"\n\"time\"\n" + module + "\"\n" + module + "/memlock\"\n",
			Beside:  "func checkpoint(context.Context) error { return nil }",
			Pieces:  1},
		{File: "docs/web.md",
			Imports: "\"database/sql\"\n\"net/http\"\n" + module + "/lockweb\"\n",
			Given:   "db *sql.DB",
			Pieces:  1},
	} {
		snippets.Check(t, p)
	}
}
