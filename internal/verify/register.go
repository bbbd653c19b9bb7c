package verify

import (
	"context"

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

func (p *postgres) write(ctx context.Context, w registerWrite) (met string, outcome Outcome, err error) {
	statement := writeSQL
	if w.Claim {
		statement = claimSQL
	}
	err = p.register.QueryRowContext(ctx, statement, w.Fence, w.Target, w.ID).Scan(&met)
	switch {
	case sqlstate.Of(err) == staleFence:
		return met, Refused, nil
	case err != nil:
		return met, Failed, err
	}
	return met, OK, nil
}
