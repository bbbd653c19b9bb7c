package pglock

import (
	"context"
	"crypto/rand"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"math"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"weak"
)

// A ledger is what this process knows of one PostgreSQL session. PostgreSQL
// lets a session take a lock that it holds, and then wants as many unlocks, so
// whoever comes to the session must find the same ledger: two lockers on one
// *sql.Conn, or one whose connection the pool hands out again with a lock on
// it. The driver's connection is what they have in common.
type ledger struct {
	turn  chan struct{} // holds one value: whose turn it is to use the session
	turns atomic.Int64  // how many have ended
	watch watch         // used by whoever has the turn
	token string        // tells the server whose session it is

	// For whoever has the turn.
	marked  bool   // the server was told, and knows unless it was made to forget
	backend int32  // that was marked last
	started int64  // when it was, as Mark says it
	schema  string // where lock_audit is, quoted; empty if it was not found

	mu      sync.Mutex
	dead    error            // why the session was destroyed
	locks   map[lockID]*hold // what the server may think this session holds
	owed    []*hold          // those of them that have ended here
	tickets map[*ticket]bool // its places in line; true: owed
	lease   lease            // the shortest TTL of the locks, from the last statement on
	saved   timeouts         // the caller's own settings, while there is a lease
	timer   *time.Timer      // ends what has expired
	wake    time.Time        // when the timer goes off
	pool    *poolSession     // whose session it is, if a pool's: then the lease is the session's own
}

// A lockID tells the locks of a session apart. A key is there once, but for the
// readers of a pool, who are numbered from 1.
type lockID struct {
	key    Key
	reader int
}

// ledgers has a ledger for each driver's connection that was ever locked on,
// until that connection is garbage: map[weak.Pointer[byte]]*ledger. A ledger
// must not keep its connection alive, so a lock that is over lets go of it.
var ledgers sync.Map

// ledgerOf finds the ledger of conn's session, and the driver's connection.
func ledgerOf(conn *sql.Conn) (led *ledger, raw driver.Conn, err error) {
	if conn == nil {
		return nil, nil, errors.New("the connection is nil")
	}
	err = conn.Raw(func(driverConn any) error {
		v := reflect.ValueOf(driverConn)
		if v.Kind() != reflect.Pointer {
			return fmt.Errorf("a driver's connection of type %T cannot be told from another: %w", driverConn, errors.ErrUnsupported)
		}
		p := (*byte)(v.UnsafePointer())
		id := weak.Make(p)
		found, ok := ledgers.Load(id)
		if !ok {
			fresh := &ledger{turn: make(chan struct{}, 1), locks: make(map[lockID]*hold), tickets: make(map[*ticket]bool), token: rand.Text()}
			if found, ok = ledgers.LoadOrStore(id, fresh); !ok {
				runtime.AddCleanup(p, func(id weak.Pointer[byte]) { ledgers.Delete(id) }, id)
			}
		}
		led, raw = found.(*ledger), driverConn.(driver.Conn)
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("the connection is not usable: %w", err)
	}
	return led, raw, nil
}

// take waits for its turn to use the session; give ends the turn.
func (led *ledger) take(ctx context.Context) error {
	if led.tryTake() {
		return nil
	}
	select {
	case led.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// takeSoon does not depend on anybody's context. Statements are bounded, so it
// gives up only if no turn ends for longer than one can take.
func (led *ledger) takeSoon() error {
	if led.tryTake() {
		return nil
	}
	for {
		turns := led.turns.Load()
		ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
		err := led.take(ctx)
		cancel()
		if err == nil || led.turns.Load() == turns {
			return err
		}
	}
}

func (led *ledger) tryTake() bool {
	select {
	case led.turn <- struct{}{}:
		return true
	default:
		return false
	}
}

func (led *ledger) give() {
	led.turns.Add(1)
	<-led.turn
}

// add enters a lock that the server has granted.
func (led *ledger) add(h *hold, saved timeouts) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.locks[h.id] = h
	if ttl := h.info.TTL; ttl > 0 && led.pool == nil {
		if led.lease.ttl == 0 {
			led.lease.ttl, led.saved = ttl, saved
		}
		led.lease.ttl = min(led.lease.ttl, ttl)
	}
	if now := time.Now(); h.lease.ttl > 0 || led.lease.ttl > 0 {
		led.arm(min(h.lease.left(now), led.lease.left(now)))
	}
}

// has says whether the server may still hold h for this session.
func (led *ledger) has(h *hold) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.locks[h.id] == h
}

// holds is the lock on key that the server may think this session holds, or nil;
// the readers of a pool are left out.
func (led *ledger) holds(key Key) *hold {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.locks[lockID{key: key}]
}

// reads says whether the session has readers of key besides but.
func (led *ledger) reads(key Key, but *hold) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	for id, h := range led.locks { // never many: only pools have several, and ask seldom
		if id.key == key && id.reader > 0 && h != but {
			return true
		}
	}
	return false
}

// line is the numbers of the session's places in a line.
func (led *ledger) line(hash int64) (numbers []int32) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for t := range led.tickets {
		if t.hash == hash {
			numbers = append(numbers, t.number)
		}
	}
	return numbers
}

// owes is something that the session owes, if there is anything.
func (led *ledger) owes() (*hold, *ticket) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for t, owed := range led.tickets {
		if owed {
			return nil, t
		}
	}
	if len(led.owed) > 0 {
		return led.owed[0], nil
	}
	return nil, nil
}

// remove strikes out a lock that the server does not hold for us any more, and
// sets the lease to next, what without returned for it.
func (led *ledger) remove(h *hold, next time.Duration) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.owed = slices.DeleteFunc(led.owed, func(o *hold) bool { return o == h })
	if led.locks[h.id] != h {
		return
	}
	delete(led.locks, h.id)
	h.w = nil
	led.lease.ttl = next
	if len(led.locks) == 0 {
		led.disarm()
	}
	if led.pool != nil {
		led.pool.freed(h)
	}
}

// takenBy is the locks that w took. Their Release has nothing to do any more.
func (led *ledger) takenBy(w *wire) (holds []*hold) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, h := range led.locks {
		if h.w == w {
			h.released = true
			holds = append(holds, h)
		}
	}
	return holds
}

// ticketsOf is w's places in line.
func (led *ledger) ticketsOf(w *wire) (tickets []*ticket) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for t := range led.tickets {
		if t.w == w {
			tickets = append(tickets, t)
		}
	}
	return tickets
}

// without is the lease that the session has when h is gone, and what the
// settings must be for it.
func (led *ledger) without(h *hold) (time.Duration, timeouts) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if h.info.TTL == 0 || led.locks[h.id] != h || led.pool != nil {
		return led.lease.ttl, timeouts{}
	}
	var next time.Duration
	for _, other := range led.locks {
		if ttl := other.info.TTL; other != h && ttl > 0 && (next == 0 || ttl < next) {
			next = ttl
		}
	}
	if next == 0 {
		return 0, led.saved
	}
	return next, led.saved.of(next)
}

// timeouts is what the settings must be now.
func (led *ledger) timeouts() timeouts {
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.lease.ttl == 0 || led.pool != nil {
		return timeouts{}
	}
	return led.saved.of(led.lease.ttl)
}

// alive returns an error if the session was destroyed.
func (led *ledger) alive() error {
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.dead != nil {
		return fmt.Errorf("the session was destroyed (%w): take another connection", led.dead)
	}
	return nil
}

// pooled says whether the session is a Pool's, whose connection nobody else
// closes: it is closed only if the session is dead.
func (led *ledger) pooled() bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.pool != nil
}

// touch notes that a statement, sent at the time given, was answered: it has
// restarted the server's count.
func (led *ledger) touch(sent time.Time) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if sent.After(led.lease.start) {
		led.lease.start = sent
	}
}

// arm sees to it that the timer goes off within d. led.mu is held.
func (led *ledger) arm(d time.Duration) {
	at := time.Now().Add(d)
	switch {
	case led.timer == nil:
		led.timer = time.AfterFunc(d, led.expire)
	case at.Before(led.wake):
		led.timer.Reset(d)
	default:
		return
	}
	led.wake = at
}

// disarm stops the timer. led.mu is held.
func (led *ledger) disarm() {
	if led.timer != nil {
		led.timer.Stop()
		led.timer = nil
	}
}

// expire ends the locks whose time is up and sets the timer for the next. It
// is set lazily: a refresh does not touch it.
func (led *ledger) expire() {
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.timer == nil {
		return
	}
	if led.pool != nil {
		defer led.pool.flush()
	}
	now := time.Now()
	next := time.Duration(math.MaxInt64)
	for _, h := range led.locks {
		if h.expire(now); h.err == nil {
			next = min(next, h.lease.left(now), led.lease.left(now))
		}
	}
	led.timer = nil
	if next < math.MaxInt64 {
		led.arm(next)
	}
}

// lose ends every lock of a session that is gone.
func (led *ledger) lose(cause error) {
	led.mu.Lock()
	defer led.mu.Unlock()
	led.dead = cause
	led.disarm()
	now := time.Now()
	for _, h := range led.locks {
		h.expire(now) // that may be why
		h.abandon(cause)
		if led.pool != nil {
			led.pool.freed(h)
		}
	}
	clear(led.locks)
	clear(led.tickets)
	led.owed, led.lease.ttl, led.pool = nil, 0, nil
}

// abandon ends the locks that were taken through conn, or not through conn if
// it is the others that are closed. The session may be alive: in the pool,
// given back with locks on it. Whoever comes to it next pays what it owes.
func (led *ledger) abandon(conn *sql.Conn, others bool, cause error) {
	led.mu.Lock()
	defer led.mu.Unlock()
	for _, h := range led.locks {
		if h.w != nil && (h.w.conn != conn) == others {
			h.abandon(cause)
		}
	}
	for t := range led.tickets {
		if (t.w.conn != conn) == others {
			led.tickets[t] = true
		}
	}
}
