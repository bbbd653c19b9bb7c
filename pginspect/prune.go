package pginspect

import (
	"context"
	"math"
	"time"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// A PruneQuery says what Prune deletes, and how fast.
type PruneQuery struct {
	// Before bounds what is deleted, by the server's clock: holds that ended before,
	// and those that nobody closed, were last proven before, and whose lock is not
	// held.
	Before time.Time

	// Batch is how many rows one statement looks at, which is a transaction of
	// its own; 0: 1,000. Between two, Prune pauses for as long as the last took,
	// so that others have half of the server at least.
	Batch int

	// Progress is called after each batch, if it is not nil.
	Progress func(Pruned)
}

// Pruned says how far Prune has come.
type Pruned struct {
	Deleted int64 `json:"deleted"`
	Looked  int64 `json:"looked"` // rows that began before that time; deleted or not
	Total   int64 `json:"total"`  // of those, when it began
}

const defaultBatch = 1000

// Prune deletes old rows of the audit, in bounded batches, the oldest first. It
// waits for no lock and no holder waits for it: it touches no row of a lock that
// is held. It may be cut short at any time, by its context or by a crash: what
// it has deleted stays deleted, also in the result with an error, and the next
// call goes on with the rest.
func Prune(ctx context.Context, on DB, q PruneQuery) (done Pruned, err error) {
	t, err := openAudit(ctx, on)
	if err != nil {
		return done, err
	}
	p := db.PruneBatchParams{Before: upward(q.Before), After: math.MinInt32, ID: math.MinInt64, Most: defaultBatch}
	if q.Batch > 0 {
		p.Most = int64(q.Batch)
	}
	if done.Total, err = t.q.PruneCount(ctx, p.Before); err != nil {
		return done, explain("count the old rows", err)
	}
	for {
		began := time.Now()
		row, err := t.q.PruneBatch(ctx, p)
		if sqlstate.Of(err) == "40001" { // Another Prune has deleted these rows.
			if err := pause(ctx, time.Since(began)); err != nil {
				return done, explain("delete old rows", err)
			}
			continue
		}
		if err != nil {
			return done, explain("delete old rows", err)
		}
		done.Deleted += row.Deleted
		done.Looked += row.Looked
		done.Total = max(done.Total, done.Looked)
		if q.Progress != nil {
			q.Progress(done)
		}
		if row.Looked < p.Most {
			return done, nil
		}
		p.After, p.ID = row.After, row.ID
		if err := pause(ctx, time.Since(began)); err != nil {
			return done, explain("delete old rows", err)
		}
	}
}
