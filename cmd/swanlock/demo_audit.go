package main

import (
	"context"
	"database/sql"
	"fmt"
	"text/tabwriter"
)

// audit shows the table and asks it whether two ever held the target at once.
func (d *demo) audit(ctx context.Context) error {
	d.say("\nWhat the audit says (the table lock_audit, the last 6 rows)\n")
	rows, err := d.db.QueryContext(ctx, `
		SELECT owner, fence, ttl_ms, acquired_at - min(acquired_at) OVER (), released_at - acquired_at, end_reason
		FROM (SELECT owner, fence, ttl_ms,
				extract(epoch FROM acquired_at)::float8 AS acquired_at, extract(epoch FROM released_at)::float8 AS released_at, end_reason
			FROM lock_audit WHERE key = $1) a
		ORDER BY acquired_at DESC LIMIT 6`, int64(d.key))
	if err != nil {
		return err
	}
	defer rows.Close()
	var table []string
	for rows.Next() {
		var (
			owner    string
			fence    sql.NullInt64
			ttl      int64
			from     float64
			held     sql.NullFloat64
			end      sql.NullString
			heldText = "-"
		)
		if err := rows.Scan(&owner, &fence, &ttl, &from, &held, &end); err != nil {
			return err
		}
		if held.Valid {
			heldText = fmt.Sprintf("%.3f s", held.Float64)
		}
		table = append(table, fmt.Sprintf("\t%s\t%d\t%d s\t%.3f s\t%s\t%s\n", owner, fence.Int64, ttl/1000, from, heldText, end.String))
	}
	if err := rows.Err(); err != nil {
		return err
	}
	w := tabwriter.NewWriter(d.out, 6, 0, 2, ' ', 0)
	fmt.Fprint(w, "\towner\tfence\tttl\tfrom\theld for\tend\n")
	for i := range table {
		fmt.Fprint(w, table[len(table)-1-i])
	}
	if err := w.Flush(); err != nil {
		return err
	}

	var n, open, overlaps, sinking int
	err = d.db.QueryRowContext(ctx, `
		SELECT count(*), count(*) FILTER (WHERE released_at IS NULL),
			count(*) FILTER (WHERE acquired_at < before), count(*) FILTER (WHERE fence <= fence_before)
		FROM (SELECT *, max(released_at) OVER earlier AS before, max(fence) OVER earlier AS fence_before
			FROM lock_audit WHERE key = $1
			WINDOW earlier AS (ORDER BY acquired_at ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) a`,
		int64(d.key)).Scan(&n, &open, &overlaps, &sinking)
	if err != nil {
		return err
	}
	d.claim(n == d.grants && open == 0, "it has a row for each of the %d times that the target was locked (%d), %d still open", d.grants, n, open)
	d.claim(overlaps == 0, "no two of them overlap")
	d.claim(sinking == 0, "their fences rise, from the first to the last")
	return nil
}
