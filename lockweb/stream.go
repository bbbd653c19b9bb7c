package lockweb

import (
	"bytes"
	"encoding/json"
	"net/http"
	"time"
)

const (
	// streamLife is how long a stream lasts. The page opens another one then,
	// unless its session has ended.
	streamLife = time.Hour
	// writeTimeout bounds a write to a page that does not read.
	writeTimeout = 10 * time.Second
)

// A change is what a page must do to what it has, to have what is there now.
type change struct {
	Now  int64                      `json:"now"` // Unix milliseconds, by the server's clock
	Full bool                       `json:"full,omitempty"`
	Head *head                      `json:"head,omitempty"` // nil: as before
	Set  map[string]json.RawMessage `json:"set,omitempty"`
	Gone []string                   `json:"gone,omitempty"`
}

// changeFrom returns what leads from before, which may be nil, to s.
func (s *snapshot) changeFrom(before *snapshot) change {
	c := change{Now: s.now.UnixMilli()}
	if before == nil {
		c.Full, c.Head, c.Set = true, &s.head, s.items
		return c
	}
	if before.head != s.head {
		c.Head = &s.head
	}
	c.Set = map[string]json.RawMessage{}
	for id, item := range s.items {
		if !bytes.Equal(before.items[id], item) {
			c.Set[id] = item
		}
	}
	for id := range before.items {
		if _, ok := s.items[id]; !ok {
			c.Gone = append(c.Gone, id)
		}
	}
	return c
}

// events is the stream of changes. A page that is slow gets fewer and larger
// ones: each is made from what that page has.
func (h *handler) events(w http.ResponseWriter, r *http.Request) {
	select {
	case h.streams <- struct{}{}:
		defer func() { <-h.streams }()
	default:
		refuse(w, r, http.StatusServiceUnavailable, "too many pages are open")
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("X-Accel-Buffering", "no") // nginx would keep it back
	out := http.NewResponseController(w)
	ticker, end := time.NewTicker(h.look.every), time.NewTimer(streamLife)
	defer ticker.Stop()
	defer end.Stop()
	var last *snapshot
	for {
		s, err := h.look.latest(r.Context())
		if err != nil {
			return
		}
		if s != last {
			text, err := json.Marshal(s.changeFrom(last))
			if err != nil {
				return
			}
			last = s
			// A server may not be able to set deadlines; then it has none.
			_ = out.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := w.Write(append(append([]byte("data: "), text...), "\n\n"...)); err != nil || out.Flush() != nil {
				return
			}
		}
		select {
		case <-ticker.C:
		case <-end.C:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// state is the first change of a stream, for who wants no stream.
func (h *handler) state(w http.ResponseWriter, r *http.Request) {
	if s, err := h.look.latest(r.Context()); err == nil {
		respond(w, http.StatusOK, s.changeFrom(nil))
	}
}

func respond(w http.ResponseWriter, status int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		http.Error(w, "the answer cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(append(text, '\n'))
}
