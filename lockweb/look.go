package lockweb

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

const (
	// lookTimeout bounds a look at the server.
	lookTimeout = 5 * time.Second
	// patience is how much longer a driver may take to notice that.
	patience = 500 * time.Millisecond
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
	now   time.Time // by the server's clock, or ours before it has told that
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

	mu    sync.Mutex
	last  *snapshot
	under *looking // nil: nobody looks
}

// looking is a look that is under way.
type looking struct {
	began time.Time
	done  chan struct{}
}

func newLooker(db *sql.DB) *looker { return &looker{db: db, every: time.Second} }

// latest returns a snapshot that is not much older than the interval. After a
// look that failed, or that is not over in time, it is the last one that
// succeeded, with the trouble.
func (l *looker) latest(ctx context.Context) (*snapshot, error) {
	l.mu.Lock()
	if l.last != nil && time.Since(l.last.taken) < l.every*9/10 {
		defer l.mu.Unlock()
		return l.last, nil
	}
	if l.under == nil {
		l.under = &looking{time.Now(), make(chan struct{})}
		go l.run(context.WithoutCancel(ctx), l.under)
	}
	under := l.under
	l.mu.Unlock()
	timer := time.NewTimer(time.Until(under.began.Add(lookTimeout + patience)))
	defer timer.Stop()
	var late error
	select {
	case <-under.done:
	case <-timer.C:
		late = context.DeadlineExceeded
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if late != nil && l.under == under {
		l.last = l.troubledLocked(under.began, late)
	}
	return l.last, nil
}

// run looks. Others get the result as well, so it does not end with the request
// that began it.
func (l *looker) run(ctx context.Context, u *looking) {
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	s, err := l.look(ctx)
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		s = l.troubledLocked(u.began, err)
	}
	s.taken, s.took = time.Now(), time.Since(u.began)
	l.last, l.under = s, nil
	close(u.done)
}

// troubledLocked is what was known, with what is wrong now.
func (l *looker) troubledLocked(began time.Time, err error) *snapshot {
	s := &snapshot{now: began}
	if l.last != nil {
		before := *l.last
		s = &before
		s.now = before.now.Add(time.Since(before.taken))
	}
	if s.head.Trouble = plain(err); s.head.Since == 0 {
		s.head.Since = began.UnixMilli()
	}
	s.taken, s.took = time.Now(), time.Since(began)
	return s
}

// within returns what f returns, or an error soon after lookTimeout. lib/pq does
// not leave a statement when its context ends, if the server does not answer a
// request to cancel it either; f is left behind then.
func within[T any](ctx context.Context, f func(ctx context.Context) (T, error)) (T, error) {
	type result struct {
		v   T
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, lookTimeout)
	done := make(chan result, 1)
	go func() {
		defer cancel()
		v, err := f(ctx)
		done <- result{v, err}
	}()
	select {
	case r := <-done:
		return r.v, r.err
	case <-ctx.Done():
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case r := <-done:
		return r.v, r.err
	case <-timer.C:
		var none T
		return none, context.Cause(ctx)
	}
}

func (l *looker) look(ctx context.Context) (s *snapshot, err error) {
	s = &snapshot{}
	if s.locks, s.waiters, err = l.watcher.Look(ctx, l.db); err != nil {
		return nil, err
	}
	switch {
	case len(s.locks) > 0:
		s.now = s.locks[0].SeenAt
	case len(s.waiters) > 0:
		s.now = s.waiters[0].SeenAt
	default:
		if s.now, err = clockOf(ctx, l.db); err != nil {
			return nil, err
		}
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

// clockOf returns the server's time, of which the audit's rows have theirs.
func clockOf(ctx context.Context, db *sql.DB) (now time.Time, err error) {
	err = db.QueryRowContext(ctx, "SELECT pg_catalog.clock_timestamp()").Scan(&now)
	return now, err
}

// plain is an error's text as one line for the page, without our own name.
func plain(err error) string {
	const most = 400
	text := strings.TrimPrefix(strings.Join(strings.Fields(printable(err.Error())), " "), "pginspect: ")
	if errors.Is(err, context.DeadlineExceeded) {
		text = "no answer within " + lookTimeout.String()
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
