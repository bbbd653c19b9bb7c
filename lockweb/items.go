package lockweb

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

// The items are what the page shows, each with an id that stays its own. They
// have no clock of their own, so that one that did not change is the same text.
// Times are Unix milliseconds by the server's clock; numbers of 64 bits are
// texts, since JavaScript's have 53.

type lockItem struct {
	Name        string       `json:"name"`
	Target      string       `json:"target,omitempty"`
	Kind        string       `json:"kind"`
	Key         string       `json:"key"`
	Database    string       `json:"database,omitempty"`
	Shared      bool         `json:"shared,omitempty"`
	Owner       string       `json:"owner,omitempty"`
	Fence       string       `json:"fence,omitempty"`
	TTL         int64        `json:"ttl,omitempty"` // milliseconds
	Refreshed   int64        `json:"refreshed,omitempty"`
	Since       int64        `json:"since,omitempty"`
	Exact       bool         `json:"exact,omitempty"`
	PID         int          `json:"pid"`
	Started     string       `json:"started,omitempty"` // microseconds
	Role        string       `json:"role,omitempty"`
	Application string       `json:"application,omitempty"`
	Client      string       `json:"client,omitempty"`
	State       string       `json:"state,omitempty"`
	Waiting     int          `json:"waiting,omitempty"`
	Waiters     []waiterItem `json:"waiters,omitempty"` // the first of them
	SameLine    bool         `json:"same_line,omitempty"`
}

type waiterItem struct {
	Name        string `json:"name,omitempty"` // if no lock is there to tell
	Place       int    `json:"place"`
	PID         int    `json:"pid"`
	Since       int64  `json:"since,omitempty"`
	Role        string `json:"role,omitempty"`
	Application string `json:"application,omitempty"`
	Client      string `json:"client,omitempty"`
}

type recordItem struct {
	ID        string `json:"id"`
	Target    string `json:"target"`
	Owner     string `json:"owner"`
	Shared    bool   `json:"shared,omitempty"`
	Fence     string `json:"fence,omitempty"`
	TTL       int64  `json:"ttl,omitempty"`
	PID       int    `json:"pid"`
	Client    string `json:"client,omitempty"`
	State     string `json:"state"`
	Acquired  int64  `json:"acquired"`
	Refreshed int64  `json:"refreshed,omitempty"`
	Ended     int64  `json:"ended,omitempty"`
	End       string `json:"end,omitempty"`
	EndedBy   string `json:"ended_by,omitempty"`
	Succeeded int64  `json:"succeeded,omitempty"`
}

func millis(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}

func startedText(s pginspect.Session) string {
	if s.Started.IsZero() {
		return ""
	}
	return strconv.FormatInt(s.Started.UnixMicro(), 10)
}

func waiterOf(w pginspect.Waiter) waiterItem {
	return waiterItem{Place: w.Place, PID: w.PID, Since: millis(w.WaitingSince), Role: w.Role, Application: w.Application, Client: w.Client}
}

func lockOf(l pginspect.Lock) lockItem {
	_, exact := l.HeldFor()
	i := lockItem{Name: l.Name(), Target: l.Target, Kind: string(l.Kind), Key: strconv.FormatInt(l.Key, 10), Database: l.Database, Shared: l.Shared,
		Owner: l.Owner, Fence: number(l.Fence), TTL: l.TTL.Milliseconds(), Refreshed: millis(l.RefreshedAt), Since: millis(l.HeldSince), Exact: exact,
		PID: l.PID, Started: startedText(l.Session), Role: l.Role, Application: l.Application, Client: l.Client, State: l.State, Waiting: len(l.Waiters)}
	for _, w := range l.Waiters[:min(len(l.Waiters), maxWaiters)] {
		i.Waiters = append(i.Waiters, waiterOf(w))
	}
	return i
}

func recordOf(r pginspect.Record) recordItem {
	return recordItem{ID: strconv.FormatInt(r.ID, 10), Target: r.Target, Owner: r.Owner, Shared: r.Shared, Fence: number(r.Fence), TTL: r.TTL.Milliseconds(),
		PID: r.PID, Client: r.Client, State: string(r.State), Acquired: millis(r.AcquiredAt), Refreshed: refreshed(r), Ended: millis(r.EndedAt),
		End: r.End, EndedBy: r.EndedBy, Succeeded: millis(r.SucceededAt)}
}

// refreshed is 0 for a held record, which each of its refreshes would change.
func refreshed(r pginspect.Record) int64 {
	if r.State == pginspect.Held {
		return 0
	}
	return millis(r.RefreshedAt)
}

func recordsOf(records []pginspect.Record) []recordItem {
	items := make([]recordItem, len(records))
	for i, r := range records {
		items[i] = recordOf(r)
	}
	return items
}

// itemsOf makes the items of a snapshot, and counts them in its head.
func itemsOf(s *snapshot) (map[string]json.RawMessage, error) {
	s.head.Locks, s.head.Waiters = len(s.locks), len(s.waiters)
	items := map[string]any{}
	locks := s.locks
	if len(locks) > maxLocks {
		locks = slices.Clone(locks)
		slices.SortStableFunc(locks, func(a, b pginspect.Lock) int {
			return cmp.Or(cmp.Compare(len(b.Waiters), len(a.Waiters)), a.HeldSince.Compare(b.HeldSince))
		})
		locks = locks[:maxLocks]
	}
	s.head.Shown = len(locks)
	type line struct {
		database string
		foreign  bool
		key      int64
	}
	lines, places := map[line]bool{}, map[string]bool{}
	for _, l := range locks {
		item, in := lockOf(l), line{l.Database, l.Kind == pginspect.Foreign, l.Key}
		if lines[in] {
			item.SameLine, item.Waiters = len(item.Waiters) > 0, nil
		}
		lines[in] = true
		items[fmt.Sprintf("l|%s|%s|%d|%t|%t|%s", l.Database, item.Key, l.PID, in.foreign, l.Shared, item.Started)] = item
	}
	for _, l := range s.locks {
		for _, w := range l.Waiters {
			places[placeOf(w)] = true
		}
	}
	for _, w := range s.waiters {
		if id := placeOf(w); !places[id] {
			item := waiterOf(w)
			item.Name = w.Name()
			items[id] = item
		}
	}
	for _, r := range s.records {
		items[fmt.Sprintf("r|%d", r.ID)] = recordOf(r)
	}
	for rank, c := range contendedIn(s) {
		c.Rank = rank + 1
		items["c|"+c.Target] = c
	}
	texts := make(map[string]json.RawMessage, len(items))
	for id, item := range items {
		text, err := json.Marshal(item)
		if err != nil {
			return nil, err
		}
		texts[id] = text
	}
	return texts, nil
}

// placeOf identifies a place in a line; a session may be in several.
func placeOf(w pginspect.Waiter) string {
	return fmt.Sprintf("w|%s|%d|%d|%d|%t", w.Database, w.Key, w.PID, w.Place, w.InLine)
}

// A contended target is one that somebody waits for, or that was handed over.
type contended struct {
	Rank      int    `json:"rank"`
	Target    string `json:"target"`
	Waiting   int    `json:"waiting"`   // now
	Longest   int64  `json:"longest"`   // since when the first of them waits
	Holds     int    `json:"holds"`     // in the history that is shown
	Handovers int    `json:"handovers"` // of those holds, at most handoverGap after another
	Lost      int    `json:"lost"`      // of those holds
}

const (
	// handoverGap is the longest time between two holds, the second of which
	// somebody probably waited for.
	handoverGap = 50 * time.Millisecond
	// maxContended is how many targets are shown.
	maxContended = 10
)

func contendedIn(s *snapshot) []contended {
	found := map[string]*contended{}
	of := func(target string) *contended {
		c := found[target]
		if c == nil {
			c = &contended{Target: target}
			found[target] = c
		}
		return c
	}
	for _, w := range s.waiters {
		c := of(w.Name())
		c.Waiting++
		if since := millis(w.WaitingSince); since != 0 && (c.Longest == 0 || since < c.Longest) {
			c.Longest = since
		}
	}
	ended := map[string]time.Time{}
	for _, r := range slices.Backward(s.records) {
		c := of(r.Target)
		c.Holds++
		if end, ok := ended[r.Target]; ok && !r.Shared && r.AcquiredAt.Sub(end).Abs() <= handoverGap {
			c.Handovers++
		}
		if r.State == pginspect.Orphaned || r.State == pginspect.Ended && r.End != "released" {
			c.Lost++
		}
		if !r.EndedAt.IsZero() {
			ended[r.Target] = r.EndedAt
		}
	}
	list := slices.Collect(maps.Values(found))
	list = slices.DeleteFunc(list, func(c *contended) bool { return c.Waiting == 0 && c.Handovers == 0 })
	slices.SortFunc(list, func(a, b *contended) int {
		return cmp.Or(cmp.Compare(b.Waiting, a.Waiting), cmp.Compare(b.Handovers, a.Handovers), cmp.Compare(b.Holds, a.Holds), cmp.Compare(a.Target, b.Target))
	})
	out := make([]contended, 0, maxContended)
	for _, c := range list[:min(len(list), maxContended)] {
		out = append(out, *c)
	}
	return out
}
