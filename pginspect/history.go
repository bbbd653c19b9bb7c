package pginspect

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/db"
)

// A State is how a hold stands.
type State string

const (
	// Held means that the row is open, and its session holds the lock.
	Held State = "held"
	// Ended means that the row is closed: EndedAt and End say when and why.
	Ended State = "ended"
	// Orphaned means that the row is open, but its session has no such lock any
	// more: the holder died, and nobody has had the lock since. It ended between
	// RefreshedAt and NoticedAt.
	Orphaned State = "orphaned"
)

// A Record is a hold of a lock, as the audit has it.
type Record struct {
	ID          int64         `json:"id"`
	Target      string        `json:"target"`
	Key         int64         `json:"key"`
	Owner       string        `json:"owner"`
	Shared      bool          `json:"shared"`
	Fence       uint64        `json:"fence,omitempty"`
	TTL         time.Duration `json:"-"` // 0: none
	PID         int           `json:"pid"`
	Client      string        `json:"client,omitempty"` // an IP address; "": a Unix-domain socket
	State       State         `json:"state"`
	AcquiredAt  time.Time     `json:"acquired_at"`
	RefreshedAt time.Time     `json:"refreshed_at"`          // when it was last proven to be held
	EndedAt     time.Time     `json:"ended_at,omitzero"`     // zero, unless Ended
	End         string        `json:"end,omitempty"`         // released, expired, lost or killed
	EndedBy     string        `json:"ended_by,omitempty"`    // who killed it, if it was Kill
	NoticedAt   time.Time     `json:"noticed_at,omitzero"`   // when it was found Orphaned, by the server's clock
	SucceededAt time.Time     `json:"succeeded_at,omitzero"` // when its work was done, if Succeed noted it

	started time.Time // of its session
}

// HeldFor returns how long the lock was held: until now, if it is Held, and for
// as long as it was proven, if it is Orphaned.
func (r Record) HeldFor(now time.Time) time.Duration {
	switch r.State {
	case Ended:
		now = r.EndedAt
	case Orphaned:
		now = r.RefreshedAt
	}
	return max(0, now.Sub(r.AcquiredAt))
}

// Matches reports whether the record has such a target and owner, as History
// finds it with them in a Query.
func (r Record) Matches(target, owner string) bool {
	return matches(target, true, Keyed, r.Target, r.Key) && Match(owner, r.Owner)
}

// MarshalJSON also writes ttl_seconds, and held_seconds if the hold has ended.
func (r Record) MarshalJSON() ([]byte, error) {
	type plain Record
	out := struct {
		plain
		TTL  float64  `json:"ttl_seconds,omitempty"`
		Held *float64 `json:"held_seconds,omitempty"`
	}{plain: plain(r), TTL: r.TTL.Seconds()}
	if r.State == Ended {
		s := r.HeldFor(time.Time{}).Seconds()
		out.Held = &s
	}
	return json.Marshal(out)
}

// A Query says which records History returns.
type Query struct {
	// Target and Owner are patterns: * stands for any number of characters, ?
	// for one, and \ before either takes that from it; "" matches all. A Target
	// without wildcards is found by its key, in any of its spellings.
	Target, Owner string

	// Since and Until bound AcquiredAt: not before Since, and before Until.
	Since, Until time.Time

	After Cursor // the page after this one; "": the first
	Limit int    // of records; 0: 100. More than 10,000 are not returned
}

// A Cursor is a place in the history, between two records.
type Cursor string

// A Page is a part of the history, the newest first.
type Page struct {
	Records []Record `json:"records"`
	Next    Cursor   `json:"next,omitempty"` // "": there is no more
}

const (
	defaultLimit = 100
	maxLimit     = 10_000
	endOfTime    = 253402300800000000 // the year 10,000, in microseconds
)

// ErrCursor is the error of a Cursor that History did not make.
var ErrCursor = errors.New("this is no place in the history")

func (c Cursor) place() (micros, id int64, err error) {
	before, after, ok := strings.Cut(string(c), ".")
	micros, err1 := strconv.ParseInt(before, 10, 64)
	id, err2 := strconv.ParseInt(after, 10, 64)
	if !ok || err1 != nil || err2 != nil || micros < -endOfTime || micros > endOfTime {
		return 0, 0, fmt.Errorf("pginspect: cursor %.40q: %w", string(c), ErrCursor)
	}
	return micros, id, nil
}

// History returns a page of the audit's records, the newest first. Pass Next of
// a page as After for the next one: that costs the same however far it is, and
// rows that come or go meanwhile neither repeat nor hide others.
func History(ctx context.Context, on DB, q Query) (Page, error) {
	switch {
	case q.Limit < 0:
		return Page{}, fmt.Errorf("pginspect: the limit %d is negative", q.Limit)
	case q.Limit == 0:
		q.Limit = defaultLimit
	}
	if err := errors.Join(checkText("pattern of targets", q.Target), checkText("pattern of owners", q.Owner)); err != nil {
		return Page{}, err
	}
	most := min(q.Limit, maxLimit)
	p := db.HistoryParams{Until: endOfTime, ID: math.MinInt64, Target: like(q.Target), Owner: like(q.Owner), Most: int64(most) + 1}
	if !q.Since.IsZero() {
		p.Since = upward(q.Since)
	}
	if !q.Until.IsZero() {
		p.Until = upward(q.Until)
	}
	if q.After != "" {
		until, id, err := q.After.place()
		if err != nil {
			return Page{}, err
		}
		p.Until, p.ID = until, id
	}
	t, err := openAudit(ctx, on)
	if err != nil {
		return Page{}, err
	}
	records, err := t.settled(ctx, func() ([]Record, error) { return t.page(ctx, q.Target, p) })
	if err != nil {
		return Page{}, explain("read the audit", err)
	}
	page := Page{Records: records}
	if len(records) > most {
		page.Records = records[:most]
		last := page.Records[most-1]
		page.Next = Cursor(fmt.Sprintf("%d.%d", last.AcquiredAt.UnixMicro(), last.ID))
	}
	return page, nil
}

// upward is t in microseconds, which the server counts, as a bound: a row is before
// t if, and only if, it is before that.
func upward(t time.Time) int64 { return t.Add(time.Microsecond - 1).UnixMicro() }

// checkText keeps out what PostgreSQL's text cannot hold.
func checkText(what, s string) error {
	if strings.IndexByte(s, 0) >= 0 || !utf8.ValidString(s) {
		return fmt.Errorf("pginspect: the %s has a NUL byte, or is not valid UTF-8", what)
	}
	return nil
}

func (t table) page(ctx context.Context, target string, p db.HistoryParams) (records []Record, err error) {
	if name, only := unescaped(target); only && name != "" {
		rows, err := t.q.HistoryOfKey(ctx, db.HistoryOfKeyParams{Key: int64(swanlock.KeyOf(name)), Since: p.Since, Until: p.Until, ID: p.ID, Owner: p.Owner, Most: p.Most})
		for _, r := range rows {
			records = append(records, recordOf(db.HistoryRow(r)))
		}
		return records, err
	}
	rows, err := t.q.History(ctx, p)
	for _, r := range rows {
		records = append(records, recordOf(r))
	}
	return records, err
}

// HeldAt returns what was held at a moment, by target. A lock whose row nobody
// closed is among them, as Held or Orphaned, unless its TTL had passed by then.
func HeldAt(ctx context.Context, on DB, moment time.Time) ([]Record, error) {
	t, err := openAudit(ctx, on)
	if err != nil {
		return nil, err
	}
	records, err := t.settled(ctx, func() (records []Record, err error) {
		for last := int64(math.MinInt64); ; {
			rows, err := t.q.HeldAt(ctx, db.HeldAtParams{At: moment.UnixMicro(), ID: last, Most: maxLimit})
			if err != nil {
				return nil, err
			}
			for _, r := range rows {
				records = append(records, recordOf(db.HistoryRow(r)))
				last = r.ID
			}
			if len(rows) < maxLimit {
				return records, nil
			}
		}
	})
	if err != nil {
		return nil, explain("read the audit", err)
	}
	records = slices.DeleteFunc(records, func(r Record) bool {
		return r.State == Orphaned && r.TTL > 0 && r.RefreshedAt.Add(r.TTL).Before(moment)
	})
	slices.SortStableFunc(records, func(a, b Record) int {
		return cmp.Or(strings.Compare(a.Target, b.Target), a.AcquiredAt.Compare(b.AcquiredAt), cmp.Compare(a.ID, b.ID))
	})
	return records, nil
}

func recordOf(r db.HistoryRow) Record {
	state := Ended
	if r.Released == 0 {
		state = Orphaned // until its lock is seen
	}
	endedBy := r.EndedBy
	if state == Ended && r.EndReason != "killed" {
		endedBy = "" // Kill was cut short, and the lock ended otherwise
	}
	return Record{ID: r.ID, Target: r.Target, Key: r.Key, Owner: r.Owner, Shared: r.Shared, Fence: uint64(r.Fence),
		TTL: time.Duration(r.TtlMs) * time.Millisecond, PID: int(r.Pid), Client: r.Client, State: state,
		AcquiredAt: at(r.Acquired), RefreshedAt: at(r.Refreshed), EndedAt: at(r.Released), End: r.EndReason, EndedBy: endedBy, SucceededAt: at(r.Succeeded), started: at(r.Started)}
}

// settled reads records, and finds out which of the open ones are held. The
// locks are looked at first, since a row is closed before its lock is gone.
// What is closed or opened at this very moment shows in one of two looks: so
// only what both find orphaned is.
func (t table) settled(ctx context.Context, read func() ([]Record, error)) (records []Record, err error) {
	suspects := map[int64]bool{}
	for again := false; ; again = true {
		live, err := t.q.InspectLive(ctx)
		if err != nil {
			return nil, err
		}
		if records, err = read(); err != nil {
			return nil, err
		}
		found := markHeld(records, live, func(id int64) bool { return again && !suspects[id] })
		if again || len(found) == 0 {
			return records, nil
		}
		suspects = found
		if err := pause(ctx, lateRow); err != nil {
			return nil, err
		}
	}
}

// markHeld gives the open records their state, and returns the ids of those
// that are orphaned. If several of one session and key are open, the newest is
// the one that is held.
func markHeld(records []Record, live []db.InspectLiveRow, isNew func(id int64) bool) map[int64]bool {
	held, newest := map[holding]time.Time{}, map[holding]int64{}
	var looked time.Time
	for _, l := range live {
		held[holding{l.Pid, l.Key}] = at(l.Started)
		if l.At != 0 {
			looked = at(l.At)
		}
	}
	for _, r := range records {
		h := holding{int32(r.PID), r.Key}
		newest[h] = max(newest[h], r.ID)
	}
	orphans := map[int64]bool{}
	for i := range records {
		r := &records[i]
		h := holding{int32(r.PID), r.Key}
		began, isHeld := held[h]
		switch {
		case r.State == Ended:
		case isHeld && newest[h] == r.ID && sameSession(began, r.started), r.AcquiredAt.After(looked), isNew(r.ID):
			r.State = Held
		default:
			r.State, r.NoticedAt = Orphaned, looked
			orphans[r.ID] = true
		}
	}
	return orphans
}
