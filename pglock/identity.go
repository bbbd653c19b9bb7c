package pglock

import (
	"context"
	"crypto/rand"
	"database/sql"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// This file is how a session is known. The driver's connection is a cache of that:
// on a pgxpool each checkout makes a new one of the same session, and some drivers'
// connections have no identity. What holds is what the server says: the mark that a
// session has is the token of its ledger, and the process id of the backend, and
// when that was started, say that it is still the same.

// process is what the tokens of this process begin with.
var process = rand.Text() + "/"

var tokens atomic.Int64

func newToken() string { return process + strconv.FormatInt(tokens.Add(1), 36) }

// byToken has a weak.Pointer[ledger] for each token, and byBackend for each backend
// that was marked: a rollback may take the mark, and leave the locks.
var byToken, byBackend sync.Map

// A backend is a process of the server's.
type backend struct {
	pid     int32
	started int64
}

// orphans are the ledgers that have no driver's connection any more, and locks or
// tickets that are to be settled when the session is met again. They must not be
// collected before.
var orphans sync.Map

func (led *ledger) register() {
	byToken.Store(led.token, weak.Make(led))
	runtime.AddCleanup(led, func(token string) { byToken.Delete(token) }, led.token)
}

// ledgerIn returns the ledger that m, one of the above, has for key, or nil if
// nothing is known of it.
func ledgerIn(m *sync.Map, key any) *ledger {
	if found, ok := m.Load(key); ok {
		return found.(weak.Pointer[ledger]).Value()
	}
	return nil
}

// orphaned keeps what a ledger hasState, whose driver's connection is garbage.
func orphaned(led *ledger) {
	led = led.current()
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.hasStateLocked() && led.dead == nil {
		led.kept = true
		orphans.Store(led, nil)
	}
}

// letGoLocked ends that when there is nothing to settle any more.
func (led *ledger) letGoLocked() {
	if led.kept && !led.hasStateLocked() {
		led.kept = false
		orphans.Delete(led)
	}
}

func (led *ledger) hasStateLocked() bool {
	return len(led.locks)+len(led.tickets) > 0 || led.lease.ttl > 0
}

// current returns the ledger of the session, which is led unless led was made for a
// connection that turned out to have the session of another.
func (led *ledger) current() *ledger {
	if next := led.next.Load(); next != nil {
		return next
	}
	return led
}

// isKnown reports whether it was found out whose session this is.
func (tn turn) isKnown() bool { return tn.led.backend != 0 && tn.led.next.Load() == nil }

// cameThrough notes that the session is behind conn now.
func (led *ledger) cameThrough(conn *sql.Conn) {
	led.mu.Lock()
	led.last = weak.Make(conn)
	led.mu.Unlock()
}

// marks notes which backend has the session's mark, or is to be ended for it.
func (led *ledger) marks(row db.MarkRow) {
	at := backend{row.Pid, row.Started}
	led.mu.Lock()
	defer led.mu.Unlock()
	if at == (backend{led.backend, led.started}) {
		return
	}
	led.backend, led.started = at.pid, at.started
	if at.started == 0 { // it is not known
		return
	}
	me := weak.Make(led)
	byBackend.Store(at, me)
	runtime.AddCleanup(led, func(at backend) { byBackend.CompareAndDelete(at, me) }, at)
}

// A former is what is known of the session whose mark was found.
type former int

const (
	foreignSession   former = iota // another program's, or one that is in use
	emptySession                   // one of ours that has nothing, and that nobody has
	abandonedSession               // one of ours whose connection was closed with locks on it
	endedSession                   // one of ours that was to be ended
)

// formerOf says what the session is that had the mark before, and returns its
// ledger, if there is one.
func formerOf(led *ledger, row db.MarkRow, instead string) (former, *ledger) {
	if led.backend != 0 || row.Before == led.token || row.Before == instead && instead != "" {
		return foreignSession, nil
	}
	var other *ledger
	switch {
	case row.Before == "" && row.Started == 0:
		return foreignSession, nil
	case row.Before == "":
		if other = ledgerIn(&byBackend, backend{row.Pid, row.Started}); other == nil {
			return foreignSession, nil
		}
	case strings.HasPrefix(row.Before, process):
		if other = ledgerIn(&byToken, row.Before); other == nil {
			return emptySession, nil
		}
	default:
		return foreignSession, nil
	}
	other.mu.Lock()
	same := other.backend == row.Pid && other.started == row.Started
	dead, hasState, owned, last := other.dead != nil, other.hasStateLocked(), other.owner != nil, other.last.Value()
	other.mu.Unlock()
	switch {
	case !same:
		return foreignSession, other
	case dead:
		return endedSession, other
	case owned, last != nil && !oneconn.Closed(last):
		return foreignSession, other // a pooler gave both the same backend
	case hasState:
		return abandonedSession, other
	}
	return emptySession, other
}

// adopt makes other, whose session this is, the ledger of the connection too. From
// then on only other is used. Nothing was taken before: its turn is still to be had.
func (tn turn) adopt(ctx context.Context, other *ledger, row db.MarkRow) error {
	if row.Answer != notOurs { // the mark was replaced, as its locks are gone
		_, err := ask(ctx, tn, (*db.Queries).Mark, db.MarkParams{Session: other.token, Instead: tn.led.token})
		if err != nil { // the session has both ledgers still
			tn.led.marks(row)
			other.lose(err)
			tn.destroy(err)
			return explain(err, false)
		}
	}
	other.cameThrough(tn.sql())
	tn.led.next.Store(other)
	return nil
}

// endsItself asks a session to end, and reports whether the server says that it
// does. One whose transaction has failed cannot be asked.
func endsItself(ctx context.Context, c *oneconn.Conn, session db.EndBackendParams) bool {
	_, err := db.New(c).EndBackend(ctx, session)
	if state := sqlState(err); state != "" && state != adminShutdown {
		_, err = db.New(c).EndWhenIdle(ctx)
	}
	return err == nil || sqlState(err) == adminShutdown
}
