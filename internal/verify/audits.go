package verify

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// stepped is how far the server's clock may drift during a run; beyond that its
// times are not compared with ours.
const stepped = int64(time.Second)

// checkAudit checks the audit's table by itself, and against the history.
func checkAudit(hist *History) Result {
	r := Result{Kind: KindAudit}
	rows := make(map[string][]AuditRow)
	for _, row := range hist.Audit {
		rows[row.Owner] = append(rows[row.Owner], row)
	}
	least, most, ok := hist.offset()
	if !ok {
		r.Skipped = "the server's clock was set meanwhile: no times were compared"
	} else {
		overlaps(&r, hist)
	}
	known := make(map[string]bool)
	for _, h := range hist.Holds {
		if !h.Audited {
			continue
		}
		known[h.ID] = true
		target := hist.Targets[h.Target]
		found := rows[h.ID]
		// A driver may report success of a statement that the end of its session
		// then undid.
		calm := hist.touched(h) > max(h.Acquire.Return, h.Release.Return)
		r.Checked++
		for len(found) > 1 && (again(found[0], found[1]) || !h.Single && found[0].Reason != "released") {
			found = found[1:] // granted to a pool on a session that ended before it could say so: the pool tried again
		}
		if len(found) > 1 {
			r.find(target, h.Acquire.Return, "the audit has %d rows of one hold: %v", len(found), h)
			continue
		}
		if len(found) == 0 {
			if h.Outcome == OK && calm {
				r.find(target, h.Acquire.Return, "the audit has no row of a hold: %v", h)
			}
			continue
		}
		row := found[0]
		switch {
		case row.Target != h.Target || row.Shared != h.Shared || row.TTL != h.TTL:
			r.find(target, h.Acquire.Return, "the audit's row %d is of another lock than the hold: %v", row.ID, h)
		case h.Outcome == OK && row.Fence != h.Fence:
			r.find(target, h.Acquire.Return, "the audit's row %d has the fence %d: %v", row.ID, row.Fence, h)
		case h.Outcome == OK && h.Pid != 0 && row.BackendPid != h.Pid:
			r.find(target, h.Acquire.Return, "the audit's row %d has the process %d, not %d: %v", row.ID, row.BackendPid, h.Pid, h)
		case h.Kept() && calm && row.Reason != "released" && (row.Reason != "expired" || h.TTL == 0):
			r.find(target, h.Release.Return, "the audit's row %d says %q of a lock that was released: %v", row.ID, row.Reason, h)
		case row.Released == 0:
			r.find(target, hist.End, "the audit's row %d is open, although its lock was taken again: %v", row.ID, h)
		}
		if !ok {
			continue
		}
		outside := func(at int64, s Span) bool { return at < s.Call+least || at > s.Return+most }
		if row.Acquired < h.Acquire.Call+least || h.Outcome == OK && outside(row.Acquired, h.Acquire) {
			r.find(target, h.Acquire.Return, "the audit's row %d was acquired at another time than the hold: %v", row.ID, h)
		}
		if h.Kept() && calm && outside(row.Released, h.Release) {
			r.find(target, h.Release.Return, "the audit's row %d was released at another time than the hold: %v", row.ID, h)
		}
		// A reader's row ends at its last proof, and so does one that was lost.
		if !target.Shared && !h.Kept() && (row.Reason == "killed" || row.Reason == "expired") && row.Released < hist.certain(h)+least {
			r.find(target, h.Acquire.Return, "the audit's row %d ended while the lock was held: %v", row.ID, h)
		}
	}
	for owner, found := range rows {
		if !known[owner] {
			r.find(Target{}, hist.End, "the audit's row %d is of nobody: owner %q", found[0].ID, owner)
		}
	}
	return r
}

// again reports whether a row is of a grant that came too late for its TTL,
// from a server that had to wait or stood still. Such a lock was given back,
// and the next row is of the same waiter.
func again(row, next AuditRow) bool {
	return row.Reason == "expired" && row.TTL > 0 && row.Released != 0 && row.Released <= next.Acquired
}

// overlaps compares the intervals of each target, in the order of their
// beginnings. Of two that touch in a point neither is in the other.
func overlaps(r *Result, hist *History) {
	for i, target := range hist.Targets {
		var writer, any AuditRow // those that end last, up to here
		for _, row := range hist.audited(i) {
			r.Checked++
			other := any
			if row.Shared {
				other = writer
			}
			if row.Acquired < other.end() {
				r.find(target, hist.End, "the audit's rows %d (%s) and %d (%s) overlap by %v", other.ID, other.Owner, row.ID, row.Owner,
					time.Duration(min(other.end(), row.end())-row.Acquired))
			}
			if row.end() > any.end() {
				any = row
			}
			if !row.Shared && row.end() > writer.end() {
				writer = row
			}
		}
	}
}

func (hist *History) audited(target int) (rows []AuditRow) {
	for _, row := range hist.Audit {
		if row.Target == target {
			rows = append(rows, row)
		}
	}
	slices.SortStableFunc(rows, func(a, b AuditRow) int { return cmp.Compare(a.Acquired, b.Acquired) })
	return rows
}

func (row AuditRow) end() int64 {
	if row.ID != 0 && row.Released == 0 {
		return math.MaxInt64
	}
	return row.Released
}

// offset returns bounds of how far the server's clock was ahead of ours. They
// are not known if that changed by more than clocks drift by themselves.
func (hist *History) offset() (least, most int64, ok bool) {
	if len(hist.Clocks) == 0 {
		return 0, 0, false
	}
	least, most = math.MaxInt64, math.MinInt64
	lowest, highest := most, least // what all agree on, if they do
	for _, o := range hist.Clocks {
		if o.Max-o.Min >= stepped { // it says nothing: the server stood still
			continue
		}
		least, most = min(least, o.Min), max(most, o.Max)
		lowest, highest = max(lowest, o.Min), min(highest, o.Max)
	}
	if least > most {
		return 0, 0, false
	}
	slack := int64(time.Millisecond) // the server's times are cut to microseconds
	return least - slack, most + slack, lowest-highest < stepped
}
