package pglock

import (
	"crypto/rand"
	"database/sql"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"weak"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// This file says by what a session is known; mark.go recognizes it. The driver's
// connection is only a cache for the ledger: on a pgxpool each checkout makes a
// new one for the same session, and some drivers' connections have no identity.
// The server decides: a session is marked with the token of its ledger, and the
// process id and start of its backend say that it is still the same session.

// An identity is who a session is: to the server by its mark and its backend, and
// in this process by the connection that leads to it.
type identity struct {
	token   string                 // the mark by which the server knows the session
	pid     int32                  // the process id that was marked last, or 0
	started int64                  // when that process was started, as Mark answers
	next    atomic.Pointer[ledger] // the ledger to use instead, if the session turned out to have one already

	// mu is for those that do not have the turn: it guards last, and is held, too,
	// to write pid and started.
	mu   sync.Mutex
	last weak.Pointer[sql.Conn] // the connection that last led to the session
}

// process is the prefix of all tokens of this process.
var process = rand.Text() + "/"

var tokens atomic.Int64

func newToken() string { return process + strconv.FormatInt(tokens.Add(1), 36) }

// byToken has a weak.Pointer[ledger] for each token. byBackend has one for each
// backend that was marked, because a rollback may take the mark away and leave
// the locks.
var byToken, byBackend sync.Map

// A backend is a server process: its process id, and when it was started.
type backend struct {
	pid     int32
	started int64
}

func register(led *ledger) {
	byToken.Store(led.who.token, weak.Make(led))
	runtime.AddCleanup(led, func(token string) { byToken.Delete(token) }, led.who.token)
}

// ledgerIn returns the ledger that m, which is byToken or byBackend, has for
// key, or nil.
func ledgerIn(m *sync.Map, key any) *ledger {
	if found, ok := m.Load(key); ok {
		return found.(weak.Pointer[ledger]).Value()
	}
	return nil
}

// isKnown reports whether the session was marked, and has no other ledger.
func (who *identity) isKnown() bool { return who.pid != 0 && who.next.Load() == nil }

// cameThrough notes that conn has the session now.
func (who *identity) cameThrough(conn *sql.Conn) {
	who.mu.Lock()
	who.last = weak.Make(conn)
	who.mu.Unlock()
}

// seen returns the backend that was marked last, and whether the connection that
// last led to it is still open.
func (who *identity) seen() (at backend, open bool) {
	who.mu.Lock()
	at, last := backend{who.pid, who.started}, who.last.Value()
	who.mu.Unlock()
	return at, last != nil && !oneconn.Closed(last)
}

// became notes the session's backend, and reports whether it is another than
// before.
func (who *identity) became(at backend) bool {
	if at == (backend{who.pid, who.started}) {
		return false
	}
	who.mu.Lock()
	who.pid, who.started = at.pid, at.started
	who.mu.Unlock()
	return true
}

// marks notes which backend was marked, or is to be ended in place of being
// marked.
func marks(led *ledger, row db.MarkRow) {
	at := backend{row.Pid, row.Started}
	if !led.who.became(at) || at.started == 0 { // The server did not say.
		return
	}
	me := weak.Make(led)
	byBackend.Store(at, me)
	runtime.AddCleanup(led, func(at backend) { byBackend.CompareAndDelete(at, me) }, at)
}
