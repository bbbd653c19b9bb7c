package lockweb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

const (
	// lookTimeout bounds a look at the server.
	lookTimeout = 5 * time.Second
	// window and maxRecords bound the history that is shown live.
	window     = 15 * time.Minute
	maxRecords = 500
	// maxLocks and maxWaiters bound what is shown of the present: locks in all,
	// and waiters for each.
	maxLocks   = 1000
	maxWaiters = 50
)

// A snapshot is what one look found. It does not change.
type snapshot struct {
	taken time.Time // by our clock
	took  time.Duration
	now   time.Time // by the server's clock, or ours if nothing tells that
	head  head
	items map[string]json.RawMessage

	locks   []pginspect.Lock
	waiters []pginspect.Waiter
	records []pginspect.Record
}

// A head says how the rest is to be read.
type head struct {
	Locks   int    `json:"locks"`   // also those that are not shown
	Shown   int    `json:"shown"`   // of the locks
	Waiters int    `json:"waiters"` // also those that are not shown
	Audit   string `json:"audit"`   // "": it is there; "none"; or what is wrong
	Trouble string `json:"trouble,omitempty"`
	Since   int64  `json:"trouble_since,omitempty"` // in Unix milliseconds
}

// A looker looks at the server for all that ask, and not more often than every.
type looker struct {
	db      *sql.DB
	every   time.Duration
	watcher pginspect.Watcher
	turn    chan struct{} // holds one element while nobody looks
	last    *snapshot     // of who has the turn
}

func newLooker(db *sql.DB) *looker {
	l := &looker{db: db, every: time.Second, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

// latest returns a snapshot that is not much older than the interval. After a
// look that failed it is the last one that did not, with the trouble.
func (l *looker) latest(ctx context.Context) (*snapshot, error) {
	select {
	case <-l.turn:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	defer func() { l.turn <- struct{}{} }()
	if l.last != nil && time.Since(l.last.taken) < l.every*9/10 {
		return l.last, nil
	}
	// Others get the result as well, so it does not end with this request.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookTimeout)
	defer cancel()
	began := time.Now()
	s, err := l.look(ctx)
	if err != nil {
		s = &snapshot{now: began}
		if l.last != nil {
			before := *l.last
			s = &before
			s.now = before.now.Add(began.Sub(before.taken))
		}
		if s.head.Trouble = plain(err); s.head.Since == 0 {
			s.head.Since = began.UnixMilli()
		}
	}
	s.taken, s.took = time.Now(), time.Since(began)
	l.last = s
	return s, nil
}

func (l *looker) look(ctx context.Context) (s *snapshot, err error) {
	s = &snapshot{now: time.Now()}
	if s.locks, s.waiters, err = l.watcher.Look(ctx, l.db); err != nil {
		return nil, err
	}
	switch {
	case len(s.locks) > 0:
		s.now = s.locks[0].SeenAt
	case len(s.waiters) > 0:
		s.now = s.waiters[0].SeenAt
	}
	page, err := pginspect.History(ctx, l.db, pginspect.Query{Since: s.now.Add(-window), Limit: maxRecords})
	switch {
	case err == nil:
		s.records = page.Records
	case errors.Is(err, pginspect.ErrNoAudit):
		s.head.Audit = "none"
	case ctx.Err() != nil:
		return nil, err
	default:
		s.head.Audit = plain(err)
	}
	s.items, err = itemsOf(s)
	return s, err
}

// plain is an error's text as one line for the page, without our own name.
func plain(err error) string {
	const most = 400
	text := strings.TrimPrefix(strings.Join(strings.Fields(printable(err.Error())), " "), "pginspect: ")
	if errors.Is(err, context.DeadlineExceeded) {
		text = "no answer within " + lookTimeout.String() + " (" + text + ")"
	}
	return shortened(text, most)
}

// shortened cuts a text to so many characters.
func shortened(text string, most int) string {
	if runes := []rune(text); len(runes) > most {
		return string(runes[:most]) + "…"
	}
	return text
}

// printable is a text without what does something to a terminal or a line.
func printable(text string) string {
	return strings.Map(func(r rune) rune {
		if strconv.IsPrint(r) {
			return r
		}
		return ' '
	}, strings.ToValidUTF8(text, "\ufffd"))
}
