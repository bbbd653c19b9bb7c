package main

import (
	"context"
	"database/sql"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

const auditHelp = `Usage: swanlock audit [flags]
       swanlock audit prune --older-than D

Shows who held what and when, from the audit (swanlock run --audit,
pglock.WithAudit), the newest first; or what was held at one moment.

  swanlock audit --target nightly --since yesterday
  swanlock audit --at "yesterday 12:00"
  swanlock audit --owner 'web-*' --limit 0 --csv > web.csv
  swanlock audit prune --older-than 90d

Flags:
  --target GLOB   only those targets: * is any text, ? any character
  --owner GLOB    only those owners
  --since TIME    only holds that began then or later
  --until TIME    only holds that began before
  --at TIME       instead: what was held at that moment
  --limit N       at most N (default 100, 0: all)
  --json, --csv   everything that is known; times are in UTC

` + timeHelp + `

END is how a hold ended: released, expired (its TTL ran out), lost, or killed, and by
whom; or it is "held" still, or "orphaned": the holder's session is gone, nobody
closed the row and nobody has had the lock since. It was noticed just now, and was
last proven to be held when HELD says. "succeeded" is beside it where swanlock run
--once-every has noted that its command did; --json and --csv say when.

prune deletes what ended longer ago than D, by the server's clock, in small batches,
between which it pauses; no acquire, refresh or release waits for it. Ctrl-C ends it,
and what is deleted stays deleted: run it again to go on.

Exit codes: 0; 64 the arguments are wrong; 69 the server cannot be reached; 78 no
server is configured, or it has no audit; 128+N signal N ended it.
`

// An auditQuery is what the arguments of audit say.
type auditQuery struct {
	pginspect.Query
	at            time.Time
	asJSON, asCSV bool
}

func parseAudit(args []string, now time.Time) (q auditQuery, err error) {
	flags := newFlags("audit")
	var since, until, at string
	flags.StringVar(&q.Target, "target", "", "")
	flags.StringVar(&q.Owner, "owner", "", "")
	flags.StringVar(&since, "since", "", "")
	flags.StringVar(&until, "until", "", "")
	flags.StringVar(&at, "at", "", "")
	flags.IntVar(&q.Limit, "limit", 100, "")
	flags.BoolVar(&q.asJSON, "json", false, "")
	flags.BoolVar(&q.asCSV, "csv", false, "")
	if _, err := parse(flags, args, 0, 0); err != nil {
		return q, err
	}
	wrong := func(format string, args ...any) (auditQuery, error) {
		return q, failf(exitUsage, "audit: "+format+" (see swanlock audit --help)", args...)
	}
	if err := checkTexts("audit", q.Target, q.Owner); err != nil {
		return q, err
	}
	for _, t := range []struct {
		name, text string
		to         *time.Time
	}{{"since", since, &q.Since}, {"until", until, &q.Until}, {"at", at, &q.at}} {
		if t.text == "" {
			continue
		}
		if *t.to, err = parseTime(t.text, now); err != nil {
			return wrong("--%s %w", t.name, err)
		}
	}
	if at != "" && q.at.Nanosecond()%1e6 == 0 { // The table shows the millisecond in which a hold began.
		q.at = q.at.Add(time.Millisecond - time.Microsecond)
	}
	switch {
	case at != "" && (since != "" || until != ""):
		return wrong("--at is one moment, --since and --until are many: give one of them")
	case q.asJSON && q.asCSV:
		return wrong("give --json or --csv")
	case q.Limit < 0:
		return wrong("--limit %d is negative", q.Limit)
	case !q.Since.IsZero() && !q.Until.IsZero() && !q.Since.Before(q.Until):
		return wrong("--since %s is not before --until %s", quote(since), quote(until))
	}
	return q, nil
}

func cmdAudit(ctx context.Context, s streams, args []string) error {
	if len(args) > 0 && args[0] == "prune" {
		return cmdPrune(ctx, s, args[1:])
	}
	if _, err := parseAudit(args, time.Now()); err != nil {
		return err // without a server
	}
	return onServer(ctx, "audit", func(ctx context.Context, on *sql.DB) error {
		now, err := clockOf(ctx, on)
		if err != nil {
			return err
		}
		q, err := parseAudit(args, now)
		if err != nil {
			return err
		}
		out, err := newRecords(s, q, now)
		if err != nil {
			return err
		}
		if err := readAudit(ctx, on, q, out); err != nil {
			return configured(err)
		}
		return out.end()
	})
}

// configured gives the error of a server without an audit its code.
func configured(err error) error {
	if isNoAudit(err) {
		return &failure{exitConfig, fmt.Errorf("audit: %w", err)}
	}
	return err
}

// readAudit gives out what q asks for.
func readAudit(ctx context.Context, on *sql.DB, q auditQuery, out records) error {
	if !q.at.IsZero() {
		found, err := pginspect.HeldAt(ctx, on, q.at)
		if err != nil {
			return err
		}
		left := q.Limit
		for _, r := range found {
			if !r.Matches(q.Target, q.Owner) {
				continue
			}
			if left--; left == -1 && q.Limit > 0 {
				out.more()
				break
			}
			if err := out.add(r); err != nil {
				return err
			}
		}
		return nil
	}
	const most = 1000 // of a page
	page := q.Query
	for left := q.Limit; ; left -= page.Limit {
		if page.Limit = most; q.Limit > 0 {
			page.Limit = min(left, most)
		}
		p, err := pginspect.History(ctx, on, page)
		if err != nil {
			return err
		}
		for _, r := range p.Records {
			if err := out.add(r); err != nil {
				return err
			}
		}
		switch {
		case p.Next == "":
			return nil
		case q.Limit > 0 && left <= page.Limit:
			out.more()
			return nil
		}
		page.After = p.Next
	}
}

// records gives out records in one of three forms.
type records interface {
	add(pginspect.Record) error
	more() // there are more than were asked for
	end() error
}

func newRecords(s streams, q auditQuery, now time.Time) (records, error) {
	switch {
	case q.asJSON:
		return &jsonRecords{enc: json.NewEncoder(s.out)}, nil
	case q.asCSV:
		w := &csvRecords{csv.NewWriter(s.out)}
		return w, w.Write(csvNames)
	}
	return &recordTable{s: s, limit: q.Limit, at: q.at, now: now}, nil
}

// jsonRecords gives out a line for each record.
type jsonRecords struct{ enc *json.Encoder }

func (j *jsonRecords) add(r pginspect.Record) error { return j.enc.Encode(r) }
func (j *jsonRecords) more()                        {}
func (j *jsonRecords) end() error                   { return nil }

var csvNames = []string{"id", "target", "key", "owner", "mode", "fence", "ttl_seconds", "pid", "client", "state", "acquired_at", "refreshed_at", "ended_at", "end", "ended_by", "noticed_at", "succeeded_at"}

type csvRecords struct{ *csv.Writer }

func (c *csvRecords) add(r pginspect.Record) error {
	at := func(t time.Time) string {
		if t.IsZero() {
			return ""
		}
		return t.UTC().Format(time.RFC3339Nano)
	}
	fence := ""
	if r.Fence != 0 {
		fence = strconv.FormatUint(r.Fence, 10)
	}
	return c.Write([]string{strconv.FormatInt(r.ID, 10), r.Target, strconv.FormatInt(r.Key, 10), r.Owner, modeOf(r.Shared), fence, strconv.FormatFloat(r.TTL.Seconds(), 'f', -1, 64),
		strconv.Itoa(r.PID), r.Client, string(r.State), at(r.AcquiredAt), at(r.RefreshedAt), at(r.EndedAt), r.End, r.EndedBy, at(r.NoticedAt), at(r.SucceededAt)})
}
func (c *csvRecords) more() {}
func (c *csvRecords) end() error {
	c.Flush()
	return c.Error()
}

func modeOf(shared bool) string {
	if shared {
		return "shared"
	}
	return "exclusive"
}

// tablePart is how many records one table has, so that a long history needs no
// memory; the next begins with the names of the columns again.
const tablePart = 1000

type recordTable struct {
	s       streams
	limit   int
	at, now time.Time
	found   []pginspect.Record
	any     bool
	isMore  bool
}

func (t *recordTable) add(r pginspect.Record) error {
	t.found, t.any = append(t.found, r), true
	if len(t.found) < tablePart {
		return nil
	}
	return t.flush()
}

func (t *recordTable) more() { t.isMore = true }

func (t *recordTable) flush() error {
	c := coloursFor(t.s.out)
	width, _, _ := screenOf(t.s.out)
	out := recordsTable(t.found, t.now, c)
	t.found = t.found[:0]
	return print(t.s.out, out.text(width, c))
}

func (t *recordTable) end() error {
	switch {
	case !t.any && !t.at.IsZero():
		return print(t.s.out, "nothing that the audit knows was held at "+t.at.Local().Format(time.DateTime)+"\n")
	case !t.any:
		return print(t.s.out, "the audit has no such hold\n")
	}
	if len(t.found) > 0 {
		if err := t.flush(); err != nil {
			return err
		}
	}
	if t.isMore {
		fmt.Fprintf(t.s.err, "swanlock: there are more than %d: give --limit N, or 0 for all, or --until\n", t.limit)
	}
	return nil
}

func recordsTable(found []pginspect.Record, now time.Time, c colours) *table {
	t := &table{columns: []column{
		{"ACQUIRED", false, 0, 0}, {"HELD", true, 0, 0}, {"TARGET", false, 16, 0}, {"OWNER", false, 10, 1}, {"END", false, 8, 0}, {"FENCE", true, 0, 3}, {"MODE", false, 0, 4},
		{"TTL", true, 0, 5}, {"PID", true, 0, 6}, {"CLIENT", false, 0, 7}, {"ID", true, 0, 8},
	}}
	for _, r := range found {
		end, colour, fence, ttl := r.End, "", "", ""
		switch {
		case r.State == pginspect.Held:
			end, colour = "held", c.green
		case r.State == pginspect.Orphaned:
			end, colour = "orphaned, noticed "+r.NoticedAt.Local().Format(time.TimeOnly), c.red
		case r.EndedBy != "":
			end, colour = r.End+" by "+cell(r.EndedBy), c.red
		case r.End != "released":
			colour = c.red
		}
		if !r.SucceededAt.IsZero() {
			end += ", succeeded"
		}
		if r.Fence != 0 {
			fence = strconv.FormatUint(r.Fence, 10)
		}
		if r.TTL > 0 {
			ttl = brief(r.TTL)
		}
		t.add(colour, r.AcquiredAt.Local().Format("2006-01-02 15:04:05.000"), brief(r.HeldFor(now)), cell(r.Target), cell(r.Owner), end, fence, modeOf(r.Shared),
			ttl, strconv.Itoa(r.PID), cell(r.Client), strconv.FormatInt(r.ID, 10))
	}
	return t
}
