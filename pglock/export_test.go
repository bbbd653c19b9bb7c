package pglock

import (
	"context"
	"database/sql"
	"reflect"
	"time"
	"weak"

	"github.com/swanlake-io/swanlock"
)

func init() { maxSilence = 10 * time.Second } // tests wait for it

// LedgerID is what the ledger of conn's session is found by. It does not keep
// the session alive.
func LedgerID(conn *sql.Conn) (id weak.Pointer[byte]) {
	conn.Raw(func(driverConn any) error {
		id = weak.Make((*byte)(reflect.ValueOf(driverConn).UnsafePointer()))
		return nil
	})
	return id
}

// HasLedger reports whether the connection with that identity has a ledger.
func HasLedger(id weak.Pointer[byte]) bool {
	return ledgers.Has(id)
}

// Sabotage unlocks held on its own session, behind the pool's back.
func Sabotage(held swanlock.DistributedLock) error {
	h := held.(*PostgresLock).h
	_, err := h.a.sql().ExecContext(context.Background(), "SELECT pg_advisory_unlock($1)", int64(h.id.key))
	return err
}

// SabotageShared is Sabotage for a reader.
func SabotageShared(held swanlock.DistributedLock) error {
	h := held.(*PostgresLock).h
	_, err := h.a.sql().ExecContext(context.Background(), "SELECT pg_advisory_unlock_shared($1)", int64(h.id.key))
	return err
}

// Exchange unlocks held on its own session, and takes the lock of key there.
func Exchange(held swanlock.DistributedLock, key Key) error {
	h := held.(*PostgresLock).h
	_, err := h.a.sql().ExecContext(context.Background(), "SELECT pg_advisory_unlock($1), pg_advisory_lock($2)", int64(h.id.key), int64(key))
	return err
}

// HoldTurn takes the turn on the session of held, which must be free, and keeps
// it until give is called.
func HoldTurn(held swanlock.DistributedLock) (give func()) {
	led := held.(*PostgresLock).h.led
	if !led.turns.TryTake() {
		panic("the session is in use")
	}
	return led.turns.Give
}

// TicketSpace is what the tickets of the target's line have in common: 64 bits, with
// zeros for the number.
func TicketSpace(target string) int64 { return lineHash(KeyOf(target)) }

// Slots are the two integers of the ticket with that number.
func Slots(target string, number int) (class, slot int32) {
	hash := TicketSpace(target)
	return int32(hash >> 32), int32(hash) + int32(number)
}

// LastNumber is the last that a line has.
const LastNumber = 1<<numberBits - 1

const MaxTTL = maxTTL

var LeaseOf = leaseOf

// ServerLease asks the session of p with that pid for its lease.
func ServerLease(p *Pool, pid int) (lease time.Duration) {
	for _, s := range p.sessions.all() {
		if s.pid != int32(pid) {
			continue
		}
		s.do(context.Background(), &op{kind: running, f: func(ctx context.Context, _ turn) error {
			return s.a.sql().QueryRowContext(ctx, "SELECT setting::bigint * 1000000 FROM pg_settings WHERE name = 'idle_session_timeout'").Scan(&lease)
		}})
	}
	return lease
}

// Setting asks the session of held for a setting of the server's.
func Setting(held swanlock.DistributedLock, name string) (value string) {
	h := held.(*PostgresLock).h
	h.a.sql().QueryRowContext(context.Background(), "SELECT current_setting($1)", name).Scan(&value)
	return value
}

// LongEmpty makes the sessions of p that hold nothing believe that they have done
// so for long.
func LongEmpty(p *Pool) {
	for _, s := range p.sessions.all() {
		if s.opened(context.Background()) != nil {
			continue
		}
		s.do(context.Background(), &op{kind: running, f: func(context.Context, turn) error {
			s.emptySince = time.Now().Add(-2 * time.Minute)
			return nil
		}})
	}
}

// Expire lets the TTL of held run out now.
func Expire(held swanlock.DistributedLock) {
	h := held.(*PostgresLock).h
	h.led.mu.Lock()
	h.lease.start = time.Now().Add(-2 * h.lease.ttl)
	h.led.alarm.set(0, h.led.expire)
	h.led.mu.Unlock()
}

// QueueRelease returns the second half of Release, after it has found that the
// lock is held. Before the release is sent, the lock may have expired, been
// freed, and been granted to another caller.
func QueueRelease(held swanlock.DistributedLock) func() error {
	h := held.(*PostgresLock).h
	k, _ := h.state()
	return func() error { return k.release(context.Background(), h) }
}

// SplitTry is tryOnce in two halves: the claim, and what follows it. Between
// them the scheduler may do as it likes.
func (p *Pool) SplitTry(ctx context.Context, target string, opts ...swanlock.Option) (rest func() (*PostgresLock, error), err error) {
	r, err := check(target, opts)
	if err != nil {
		return nil, err
	}
	h := newHold(r)
	s, err := p.keys.claim(h)
	if err != nil {
		return nil, err
	}
	return func() (*PostgresLock, error) { return p.acquireOn(ctx, s, h) }, nil
}

// ExpireAndForget does what Err and then drop do to a lock whose TTL has ended
// and whose handle was dropped.
func ExpireAndForget(l swanlock.DistributedLock) {
	h := l.(*PostgresLock).h
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	h.endLocked(swanlock.ErrExpired)
	h.letGoLocked()
}

// Sessions says how many there are.
func (p *Pool) Sessions() int {
	return len(p.sessions.all())
}

// Reserved returns how many locks and tickets p has, or has reserved room for.
func (p *Pool) Reserved() int {
	return p.Stats().Used
}

// EachConn lends f the connection of each of p's sessions.
func (p *Pool) EachConn(f func(*sql.Conn)) {
	for _, s := range p.sessions.all() {
		if s.opened(context.Background()) == nil {
			s.solo(context.Background(), func(context.Context, turn) error { f(s.a.sql()); return nil })
		}
	}
}

// Waiting is how many sessions of p are kept for one waiter each.
func (p *Pool) Waiting() int {
	return p.Stats().WaitingSessions
}

// JoinedLast makes p believe that the place with that number was the last that was
// taken here.
func (p *Pool) JoinedLast(number int) {
	p.hint.mu.Lock()
	defer p.hint.mu.Unlock()
	p.hint.lastTicket, p.hint.joinedAt = int32(number), time.Now()
}

// GiveUp ends the session of held, a lock of a pool's.
func GiveUp(held swanlock.DistributedLock, cause error) {
	held.(*PostgresLock).h.keeper.(*poolSession).solo(context.Background(), func(_ context.Context, tn turn) error {
		tn.destroy(cause)
		return nil
	})
}

// WaitThenPanic waits in line for target, on the only session that p has. The
// turn in which it takes its ticket ends with a panic.
func (p *Pool) WaitThenPanic(ctx context.Context, target string) error {
	r, err := check(target, nil)
	if err != nil {
		return err
	}
	s := p.sessions.all()[0]
	queued := func(n int) {
		for ready := false; !ready; time.Sleep(time.Millisecond) {
			s.ops.mu.Lock()
			ready = s.ops.busy && len(s.ops.queue) == n
			s.ops.mu.Unlock()
		}
	}
	first, waited := make(chan struct{}), make(chan error)
	run := func(f func()) {
		s.solo(context.Background(), func(context.Context, turn) error { f(); return nil })
	}
	go run(func() { <-first })
	queued(0)
	go func() {
		_, err := p.wait(ctx, r, true, &spell{p: p})
		waited <- err
	}()
	queued(1)
	go run(func() { panic("the driver has a bug") })
	queued(2)
	close(first)
	return <-waited
}

// WaitTx is one wait of AcquireTx, after a try.
func WaitTx(ctx context.Context, tx *sql.Tx, target string, opts ...swanlock.Option) (swanlock.Info, error) {
	return txLock{tx: tx}.acquire(ctx, target, opts, func(l txLock, ctx context.Context) (int64, error) {
		answer, _, err := l.waitOnce(ctx, time.Second)
		return answer, err
	})
}
