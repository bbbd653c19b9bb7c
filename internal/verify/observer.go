package verify

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"time"
)

// An observer looks at the server's own list of locks, again and again, over a
// connection that no fault but a restart touches.
type observer struct {
	d       *database
	targets []Target

	mu      sync.Mutex
	seen    []Sighting
	clocks  []Offset
	outages []Fault
	stalls  []Stall
}

// every is how often it looks.
const every = 25 * time.Millisecond

const seenSQL = `
SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, k.key, k.pid, k.shared, k.label
FROM (SELECT 1) one LEFT JOIN (
	SELECT (l.classid::bigint << 32) | l.objid::bigint AS key, l.pid, l.mode = 'ShareLock' AS shared, a.application_name AS label
	FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
	WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND a.datname = current_database()
		AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database())
		AND (l.classid::bigint << 32) | l.objid::bigint = ANY($1::bigint[])
) k ON true`

func (o *observer) run(ctx context.Context) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	good, bad := now(), false
	for {
		call := now()
		err := o.look(ctx)
		if ctx.Err() != nil {
			return
		}
		switch {
		case err != nil:
			bad = true
		case bad:
			o.mu.Lock()
			o.outages = append(o.outages, Fault{Kind: FaultRestart, Detail: detailOutage, Span: Span{good, now()}})
			o.mu.Unlock()
			bad = false
			fallthrough
		default:
			good = call
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}

// stalled notes a stall of verify's own process.
func (o *observer) stalled(s Span) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.stalls = append(o.stalls, Stall{Span: s})
}

// look takes one look.
func (o *observer) look(ctx context.Context) error {
	var keys []int64
	byKey := make(map[int64]int)
	for i, t := range o.targets {
		for _, key := range append([]int64{t.Key}, t.Parts...) {
			keys, byKey[key] = append(keys, key), i
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	span := Span{Call: now()}
	rows, err := o.d.db.QueryContext(ctx, seenSQL, keys)
	if err != nil {
		return err
	}
	defer rows.Close()
	var seen []Sighting
	var clock int64
	for rows.Next() {
		var key, pid sql.NullInt64
		var shared sql.NullBool
		var label sql.NullString
		if err := rows.Scan(&clock, &key, &pid, &shared, &label); err != nil {
			return err
		}
		if key.Valid && label.String != "" {
			s := Sighting{Target: byKey[key.Int64], Pid: int(pid.Int64), Shared: shared.Bool, Label: label.String}
			if rest, ok := strings.CutPrefix(label.String, o.d.run); ok {
				s.Label = rest
			}
			seen = append(seen, s)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	span.Return = now()
	for i := range seen {
		seen[i].Span = span
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.seen = append(o.seen, seen...)
	if span.Return-span.Call > int64(lateAnswer) {
		o.stalls = append(o.stalls, Stall{Span: span})
	}
	o.clocks = append(o.clocks, Offset{clock*1000 - span.Return, clock*1000 - span.Call})
	return nil
}
