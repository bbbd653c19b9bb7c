package verify

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"sync"
	"time"
)

// An event is a line of what a worker writes: before a call, and after its
// return. A line is shorter than a pipe's PIPE_BUF and written at once, so that
// it is there whole, or not at all, whenever its writer is killed.
type event struct {
	What string `json:"w"`
	Hold string `json:"h,omitempty"`
	Call int64  `json:"c,omitempty"`
	At   int64  `json:"t,omitempty"` // the return

	Outcome Outcome `json:"o,omitempty"`
	Err     string  `json:"e,omitempty"`
	Fence   int64   `json:"f,omitempty"`
	Pid     int     `json:"p,omitempty"`
	Write   string  `json:"id,omitempty"`
	Claim   bool    `json:"claim,omitempty"`
	Met     string  `json:"met,omitempty"`

	New *Hold `json:"new,omitempty"` // acquire: what is asked for
}

const (
	evAcquire  = "acquire"
	evGranted  = "acquired" // with any outcome
	evHeld     = "held"     // Err was nil
	evEnded    = "ended"    // Err was not
	evWrite    = "write"
	evWritten  = "written"
	evRelease  = "release"
	evReleased = "released"
	evRollback = "rollback" // of a transaction of the holder's
	evStall    = "stall"    // Hold is the process
)

// A journal writes events.
type journal struct {
	mu sync.Mutex
	w  io.Writer
}

const maxErr = 300

func (j *journal) put(e event) error {
	if len(e.Err) > maxErr {
		e.Err = e.Err[:maxErr] + "..."
	}
	line, err := json.Marshal(e)
	if err != nil {
		return err
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err = j.w.Write(append(line, '\n'))
	return err
}

// A recorder makes holds of the events of all workers.
type recorder struct {
	mu     sync.Mutex
	holds  map[string]*Hold
	order  []*Hold
	counts Counts

	rolledBack int // transactions
	stalls     []Stall
}

// Counts are what the progress tells.
type Counts struct {
	Attempts int `json:"attempts"`
	Granted  int `json:"granted"`
	Shared   int `json:"shared"` // of those granted
	Lost     int `json:"lost"`
	Writes   int `json:"writes"`
	Fenced   int `json:"fenced_off"` // of the writes
}

func newRecorder() *recorder { return &recorder{holds: make(map[string]*Hold)} }

// read reads a worker's events to their end. The last line of a process that
// was killed may be torn.
func (r *recorder) read(from io.Reader) error {
	lines := bufio.NewScanner(from)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			if !lines.Scan() {
				return nil
			}
			return fmt.Errorf("a worker wrote what is no event: %w", err)
		}
		if err := r.add(e); err != nil {
			return err
		}
	}
	return lines.Err()
}

func (r *recorder) add(e event) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e.What == evAcquire {
		h := e.New
		h.ID, h.Acquire.Call = e.Hold, e.Call
		r.holds[h.ID] = h
		r.order = append(r.order, h)
		r.counts.Attempts++
		return nil
	}
	switch e.What {
	case evRollback:
		r.rolledBack++
		return nil
	case evStall:
		r.stalls = append(r.stalls, Stall{Span{e.Call, e.At}, e.Hold})
		return nil
	}
	h := r.holds[e.Hold]
	if h == nil {
		return fmt.Errorf("an event of a hold that was never asked for: %+v", e)
	}
	switch e.What {
	case evGranted:
		h.Acquire.Return, h.Outcome, h.Err, h.Fence, h.Pid = e.At, e.Outcome, e.Err, e.Fence, e.Pid
		if e.Outcome == OK {
			r.counts.Granted++
			if h.Shared {
				r.counts.Shared++
			}
		} else {
			delete(r.holds, h.ID)
		}
	case evHeld:
		h.Held = append(h.Held, Span{e.Call, e.At})
	case evEnded:
		if h.Ended == 0 {
			h.Ended, h.Err = e.At, e.Err
			r.counts.Lost++
		}
	case evWrite:
		h.Writes = append(h.Writes, Write{Span: Span{Call: e.Call}, ID: e.Write, Claim: e.Claim, Fence: e.Fence})
	case evWritten:
		w := &h.Writes[len(h.Writes)-1]
		w.Return, w.Outcome, w.Met = e.At, e.Outcome, e.Met
		r.counts.Writes++
		if e.Outcome == Refused {
			r.counts.Fenced++
		}
	case evRelease:
		h.Release.Call = e.Call
	case evReleased:
		h.Release.Return, h.Released = e.At, e.Outcome
		if e.Err != "" {
			h.Err = e.Err
		}
		delete(r.holds, h.ID)
	}
	return nil
}

// gone forgets the calls that were under way in a process that has ended.
func (r *recorder) gone(proc string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.holds, func(_ string, h *Hold) bool { return h.Proc == proc })
}

func (r *recorder) progress() Counts {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.counts
}

// waiting are the processes that have waited for longest for some lock, with a TTL on
// a session of their own, as far as they have told.
func (r *recorder) waiting() map[string]bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	first := make(map[int]*Hold)
	for _, h := range r.holds {
		if f := first[h.Target]; h.Wait && h.Outcome == Pending && (f == nil || h.Acquire.Call < f.Acquire.Call) {
			first[h.Target] = h
		}
	}
	procs := make(map[string]bool)
	for _, h := range first {
		if h.Single && h.leasesPlace() && now()-h.Acquire.Call > int64(20*time.Millisecond) {
			procs[h.Proc] = true
		}
	}
	return procs
}

// holding is how much of a TTL each process would leave behind if it was stopped
// now, as far as it has told: the processes that hold nothing are not there, and
// a lock without a TTL counts 0. With single, so does one that is not on a session
// of its locker's own, or that is just taken: most of those are released before
// anything can be done to the process.
func (r *recorder) holding(single bool) map[string]time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	ttls := make(map[string]time.Duration)
	for _, h := range r.holds {
		if h.Outcome != OK || h.Release.Call != 0 || h.Ended != 0 {
			continue
		}
		ttl := h.TTL
		if single && (!h.Single || now()-h.Acquire.Return < int64(30*time.Millisecond)) {
			ttl = 0
		}
		ttls[h.Proc] = max(ttls[h.Proc], ttl)
	}
	return ttls
}

// seconds writes a time of now for people.
func seconds(t, zero int64) string {
	return fmt.Sprintf("%.3f s", time.Duration(t-zero).Seconds())
}
