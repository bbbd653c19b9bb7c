package verify

import (
	"context"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// The register is what the locks guard: one row a target, written over
// connections of its own, which no fault but a restart touches. A holder that
// has a fence claims it first, so that nobody with a lower one can write it any
// more, and then writes. What is accepted is logged by the same statement. The
// fence guard of the migrations refuses the rest (docs/fences.md).
const (
	claimSQL = `WITH w AS (
	UPDATE register SET fence = $1::bigint FROM lock_fence($2::int, $1) WHERE target = $2 RETURNING value
) INSERT INTO register_log (id, met) SELECT $3::text, value FROM w RETURNING met`

	writeSQL = `WITH w AS (
	UPDATE register SET fence = $1::bigint, prev = value, value = $3::text FROM lock_fence($2::int, $1) WHERE target = $2 RETURNING prev
) INSERT INTO register_log (id, met) SELECT $3, prev FROM w RETURNING met`

	staleFence = "SWL01" // the SQLSTATE of a write that is refused
)

// write claims or writes the register, and reports whether that was accepted.
func (c *client) write(id string, fence int64, target int, claim bool) (bool, error) {
	statement, name := writeSQL, fmt.Sprintf("%s.%d", id, c.rnd.Uint32())
	if claim {
		statement = claimSQL
	}
	if err := c.journal.put(event{What: evWrite, Hold: id, Call: now(), Write: name, Claim: claim, Fence: fence}); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	e := event{What: evWritten, Hold: id, Outcome: OK}
	err := c.register.QueryRowContext(ctx, statement, fence, target, name).Scan(&e.Met)
	e.At = now()
	if sqlstate.Of(err) == staleFence {
		e.Outcome = Refused
	} else if err != nil {
		e.Outcome, e.Err = Failed, err.Error()
	}
	return e.Outcome == OK, c.journal.put(e)
}
