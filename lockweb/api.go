package lockweb

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pginspect"
)

// moment reads a time: RFC 3339, or Unix milliseconds.
func moment(text string, otherwise time.Time) (time.Time, error) {
	if text == "" {
		return otherwise, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && n > -1e14 && n < 1e14 {
		return time.UnixMilli(n).UTC(), nil
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return t, errors.New("a time is like 2006-01-02T15:04:05Z, or in Unix milliseconds")
	}
	return t.UTC(), nil
}

// history answers with what was held of a target, or of all, at any time from
// from to to, the newest first, and at most as much as a page of the audit.
func (h *handler) history(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	now, err := h.clock(r.Context())
	if err != nil {
		h.failed(w, r, err)
		return
	}
	to, err1 := moment(query.Get("to"), now)
	from, err2 := moment(query.Get("from"), to.Add(-24*time.Hour))
	if err := errors.Join(err1, err2); err != nil {
		refuse(w, r, http.StatusBadRequest, plain(err))
		return
	}
	target := query.Get("target")
	if !valid(target) {
		refuse(w, r, http.StatusBadRequest, "the target has a byte that PostgreSQL does not take")
		return
	}
	q := pginspect.Query{Since: from, Until: to, Limit: maxRecords, After: pginspect.Cursor(query.Get("after"))}
	if target != "" {
		q.Target = pginspect.Literal(target)
	}
	page, err := within(r.Context(), func(ctx context.Context) (pginspect.Page, error) {
		page, err := pginspect.History(ctx, h.look.db, q)
		if err == nil && page.Next == "" {
			page.Records, err = h.withEarlier(ctx, page.Records, target, from)
		}
		return page, err
	})
	if err != nil {
		h.failed(w, r, err)
		return
	}
	respond(w, http.StatusOK, map[string]any{"records": recordsOf(page.Records), "next": page.Next, "from": from.UnixMilli(), "to": min(to.UnixMilli(), now.UnixMilli())})
}

// clock returns the server's time.
func (h *handler) clock(ctx context.Context) (time.Time, error) {
	return within(ctx, func(ctx context.Context) (time.Time, error) { return clockOf(ctx, h.look.db) })
}

// withEarlier adds what was held at from already.
func (h *handler) withEarlier(ctx context.Context, records []pginspect.Record, target string, from time.Time) ([]pginspect.Record, error) {
	earlier, err := pginspect.HeldAt(ctx, h.look.db, from)
	if err != nil {
		return nil, err
	}
	earlier = slices.DeleteFunc(earlier, func(r pginspect.Record) bool {
		return target != "" && r.Key != int64(swanlock.KeyOf(target)) || slices.ContainsFunc(records, func(o pginspect.Record) bool { return o.ID == r.ID })
	})
	slices.SortFunc(earlier, func(a, b pginspect.Record) int {
		return cmp.Or(b.AcquiredAt.Compare(a.AcquiredAt), cmp.Compare(b.ID, a.ID))
	})
	return append(records, earlier[:min(len(earlier), maxRecords)]...), nil
}

// held answers with what was held at a moment.
func (h *handler) held(w http.ResponseWriter, r *http.Request) {
	now, err := h.clock(r.Context())
	if err != nil {
		h.failed(w, r, err)
		return
	}
	at, err := moment(r.URL.Query().Get("at"), now)
	if err != nil {
		refuse(w, r, http.StatusBadRequest, plain(err))
		return
	}
	if at.Nanosecond()%1e6 == 0 { // The page shows, and links to, the millisecond in which a hold began.
		at = at.Add(time.Millisecond - time.Microsecond)
	}
	records, err := within(r.Context(), func(ctx context.Context) ([]pginspect.Record, error) {
		return pginspect.HeldAt(ctx, h.look.db, at)
	})
	if err != nil {
		h.failed(w, r, err)
		return
	}
	total := len(records)
	respond(w, http.StatusOK, map[string]any{"records": recordsOf(records[:min(total, maxLocks)]), "total": total, "at": at.UnixMilli()})
}

// failed answers a question that the server did not answer.
func (h *handler) failed(w http.ResponseWriter, r *http.Request, err error) {
	status := http.StatusBadGateway
	switch {
	case errors.Is(err, pginspect.ErrNoAudit):
		status = http.StatusNotFound
	case errors.Is(err, pginspect.ErrCursor):
		status = http.StatusBadRequest
	}
	refuse(w, r, status, plain(err))
}

// valid reports whether PostgreSQL takes a text.
func valid(text string) bool {
	return strings.ToValidUTF8(text, "") == text && !strings.ContainsRune(text, 0)
}

// A killing is what a page asks for.
type killing struct {
	PID     int    `json:"pid"`
	Started string `json:"started"` // as it was shown
	Key     string `json:"key"`     // of a lock of the session, as it was shown
	By      string `json:"by"`      // who wants it
}

// kill ends the session of a holder. It must still be the session that the page
// has shown, and must still hold the lock that was shown.
func (h *handler) kill(w http.ResponseWriter, r *http.Request) {
	if h.keys == nil {
		refuse(w, r, http.StatusForbidden, "this page is read-only: it was started without a token")
		return
	}
	if !h.keys.mayChange(r) {
		refuse(w, r, http.StatusForbidden, "the request is not from a page of this session: load the page again")
		return
	}
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind != "application/json" {
		refuse(w, r, http.StatusUnsupportedMediaType, "the request must be application/json")
		return
	}
	var k killing
	body := json.NewDecoder(http.MaxBytesReader(w, r.Body, 4<<10))
	body.DisallowUnknownFields()
	if err := body.Decode(&k); err != nil || k.PID <= 0 {
		refuse(w, r, http.StatusBadRequest, "the request must be {pid, started, key, by}")
		return
	}
	locks, err := within(r.Context(), func(ctx context.Context) ([]pginspect.Lock, error) { return pginspect.Locks(ctx, h.look.db) })
	if err != nil {
		h.failed(w, r, err)
		return
	}
	i := slices.IndexFunc(locks, func(l pginspect.Lock) bool {
		return l.PID == k.PID && startedText(l.Session) == k.Started && strconv.FormatInt(l.Key, 10) == k.Key
	})
	if i < 0 {
		refuse(w, r, http.StatusConflict, "that session does not hold that lock any more; nothing was done")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), 3*lookTimeout)
	defer cancel()
	killed, err := pginspect.Kill(ctx, h.look.db, locks[i].Session, h.by(r, k.By))
	if err != nil {
		status := http.StatusBadGateway
		switch {
		case errors.Is(err, pginspect.ErrNoSession):
			status = http.StatusConflict
		case errors.Is(err, pginspect.ErrNotAllowed):
			status = http.StatusForbidden
		case errors.Is(err, pginspect.ErrStillThere):
			status = http.StatusGatewayTimeout
		}
		refuse(w, r, status, plain(err))
		return
	}
	respond(w, http.StatusOK, killed)
}

// by says in the audit who ended a session: the name that was given, and from
// where.
func (h *handler) by(r *http.Request, name string) string {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = "a local socket"
	}
	if name = shortened(strings.Join(strings.Fields(printable(name)), " "), 100); name == "" {
		name = "somebody"
	}
	return fmt.Sprintf("%s (on the web page, from %s)", name, from)
}
