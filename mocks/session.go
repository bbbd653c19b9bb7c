package mocks

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/swanlake-io/swanlock/internal/sqlstate"
	"github.com/swanlake-io/swanlock/pglock"
)

// A session is the server's end of one connection. It keeps what was granted,
// so that it can tell the truth. All of it is guarded by pg.mu.
type session struct {
	pg     *Postgres
	pid    int32
	config config
	held   map[pglock.Key]grant
	ended  bool
	// trouble is the last question about a key, if it went wrong: pglock may
	// then ask more that is not in the script.
	trouble   map[pglock.Key]trouble
	auditOwed bool // a release failed, or found an audited lock gone: its row is wrong
	// turned is the step that a wait in line has used. pglock may take the lock
	// a second time, for a fence or an audit's row; the session then has it
	// twice, until the next unlock.
	turned  map[pglock.Key]*step
	stacked map[pglock.Key]bool

	witness string // of the settings
	xact    int64  // the last transaction
	tx      *transaction
}

// A transaction is one that the caller has begun: what there was before it, and
// what is to last when it is committed.
type transaction struct {
	before, base config
	witness      string
}

// A trouble is what went wrong.
type trouble struct {
	verb verb
	err  error // nil: it was answered
}

// Two of the server's codes mean more here than that something failed.
const (
	noSuchStatement    = "26000" // and that it has not run, so that it is sent again
	abortedTransaction = "25P02"
)

// A grant is how a lock was granted.
type grant struct {
	target string
	shared bool
	leased bool
	audit  int64
}

// A reply is an answer under way.
type reply struct {
	answer answer
	err    error
	delay  time.Duration
}

func (pg *Postgres) newSession() *session {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	s := &session{
		pg:      pg,
		pid:     firstPID + int32(len(pg.sessions)),
		config:  pg.config,
		held:    make(map[pglock.Key]grant),
		trouble: make(map[pglock.Key]trouble),
		turned:  make(map[pglock.Key]*step),
		stacked: make(map[pglock.Key]bool),
	}
	pg.sessions = append(pg.sessions, s)
	return s
}

func (s *session) end() {
	s.pg.mu.Lock()
	defer s.pg.mu.Unlock()
	s.ended = s.ended || !s.pg.over
	clear(s.held)
}

// query answers one of pglock's statements.
func (s *session) query(ctx context.Context, name, query string, args []driver.NamedValue) (driver.Rows, error) {
	q, err := read(name, args)
	if err != nil {
		s.pg.fail("%v", err)
		return nil, err
	}
	s.pg.mu.Lock()
	rows, r, err := s.ask(ctx, q, query, args)
	s.pg.mu.Unlock()
	if rows != nil || err != nil {
		return rows, err
	}
	if r.delay > 0 {
		select {
		case <-time.After(r.delay):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if r.err != nil {
		return nil, r.err
	}
	return r.answer.row(name), nil
}

// exec is query for a statement without a row.
func (s *session) exec(ctx context.Context, name, query string, args []driver.NamedValue) (driver.Result, error) {
	q, err := read(name, args)
	if err != nil {
		s.pg.fail("%v", err)
		return nil, err
	}
	pg := s.pg
	pg.mu.Lock()
	defer pg.mu.Unlock()
	pg.asked, pg.met, pg.theirs = q, nil, false
	defer func() { pg.asked = nil }()
	result, err := pg.inner.(driver.ExecerContext).ExecContext(ctx, query, args)
	if pg.theirs || err == nil {
		return result, err
	}
	if !s.auditOwed {
		return nil, s.unexpected(q)
	}
	s.auditOwed = false
	return driver.RowsAffected(1), nil
}

// ask has go-sqlmock find what the script says to q. rows and err are those of an
// expectation of the test's own.
func (s *session) ask(ctx context.Context, q *question, query string, args []driver.NamedValue) (rows driver.Rows, r reply, err error) {
	s.judge(q)
	pg := s.pg
	if s.tx == nil {
		s.xact++
	}
	switch key := q.key(); {
	case q.verb == mark:
		return nil, reply{answer: answer{Pid: s.pid, Schema: "public", Xact: s.xact, Idle: s.config.idle, IdleInTransaction: s.config.idleInTransaction}}, nil
	case q.verb == end: // the driver's Close follows
		return nil, reply{answer: answer{Ended: true}}, nil
	case q.verb == lease:
		a := answer{Pid: s.pid, Xact: s.xact, Witness: s.witness, Idle: s.config.idle, IdleInTransaction: s.config.idleInTransaction}
		s.set(q.SetIdle, q.SetIdleInTransaction, q.Temporary)
		s.changed(q)
		return nil, reply{answer: a}, nil
	case q.verb == line: // nobody else is in it
		return nil, reply{answer: answer{Pid: s.pid, Ticket: 1, Dropped: true}}, nil
	case q.verb == tryAcquire && q.name != "Turn" && s.turned[key] != nil:
		as := s.turned[key]
		delete(s.turned, key)
		s.check(q, as)
		delete(s.held, key)
		s.stacked[key] = true
		return nil, reply{answer: s.answer(q, as)}, nil
	case q.verb == release && s.stacked[key]:
		delete(s.stacked, key)
		return nil, reply{answer: answer{Pid: s.pid, Released: true}}, nil
	}
	pg.asked, pg.met, pg.theirs = q, nil, false
	rows, err = pg.inner.(driver.QueryerContext).QueryContext(ctx, query, args)
	pg.asked = nil
	if pg.theirs {
		return rows, reply{}, err
	}
	as := pg.met
	switch {
	case as != nil:
		as.met = true
		pg.stays[q.key()] = as.outcome == staysHeldElsewhere
		delete(s.turned, q.key())
		switch {
		case q.name != "Turn":
			s.check(q, as)
		case as.outcome == truthful:
			s.turned[q.key()] = as
		}
	case s.ownAccord(q):
		as = &step{verb: q.verb}
		if err := s.trouble[q.key()].err; sqlstate.Of(err) == abortedTransaction {
			as.outcome, as.err = fails, err // as everything, until it is rolled back
		}
	case q.verb == tryAcquire && pg.stays[q.key()]:
		as = &step{verb: q.verb, outcome: staysHeldElsewhere}
	default:
		return nil, reply{}, s.unexpected(q)
	}
	r = reply{err: as.err, delay: as.delay}
	r.answer = s.answer(q, as)
	return nil, r, nil
}

// check compares what was asked with what the step wants.
func (s *session) check(q *question, as *step) {
	for _, w := range as.wants {
		if problem := w(q); problem != "" {
			s.pg.failf("%s %s", as, problem)
		}
	}
}

// judge tells a probe from a refresh. Without a lease they are the same to the
// server. The refresh without a row that follows an audited one which failed counts
// as a probe.
func (s *session) judge(q *question) {
	if q.verb != refresh || q.audited() {
		return
	}
	g, ok := s.held[q.key()]
	if leased := q.Idle != "" || q.IdleInTransaction != ""; leased && !(ok && g.audit != 0) {
		return
	}
	q.mayProbe = true
	trouble := s.trouble[q.key()]
	state := sqlstate.Of(trouble.err)
	failed := trouble.verb == undo || trouble.verb == tryAcquire || trouble.verb == refresh && state != noSuchStatement && state != abortedTransaction
	if failed || ok && (g.leased || g.audit != 0) {
		q.verb = probe
	}
}

// ownAccord reports whether pglock may ask q without an expectation in the
// script.
func (s *session) ownAccord(q *question) bool {
	trouble := s.trouble[q.key()]
	after := trouble.verb
	switch q.verb {
	case undo:
		return after == tryAcquire
	case refresh:
		return after == refresh && sqlstate.Of(trouble.err) == noSuchStatement
	case probe:
		return after == refresh || after == undo || after == tryAcquire // the last: a wait that was cut
	case release: // once more, or to put back the settings after a loss
		return after == release || after == refresh || after == probe
	case terminate:
		return after == terminate
	}
	return false
}

// answer does what q asks, as the step has it.
func (s *session) answer(q *question, as *step) answer {
	key := q.key()
	g, held := s.held[key]
	delete(s.trouble, key)
	if q.verb != tryAcquire && q.verb != undo && held && (g.shared != q.Shared || q.audited() && g.audit != q.AuditID) {
		s.pg.failf("%s of %q: not the lock that was granted", q.verb, g.target)
		held = false
	}
	a := answer{Pid: s.pid, Idle: s.config.idle, IdleInTransaction: s.config.idleInTransaction, Xact: s.xact, Witness: s.witness}
	a.Temporary = s.temporary(q)
	if as.outcome == fails {
		s.trouble[key] = trouble{q.verb, as.err}
		s.auditOwed = s.auditOwed || q.verb == release && q.audited()
		return a
	}
	if as.outcome == lost {
		delete(s.held, key)
		held = false
	}
	if as.outcome == otherBackend {
		a.Pid = s.pid + 1000
		s.trouble[key] = trouble{verb: terminate}
	}
	here := a.Pid == s.pid
	if q.name != "Turn" {
		delete(s.turned, key)
	}
	switch q.verb {
	case tryAcquire:
		a.Answer, a.AuditID = s.grant(q, as)
		if q.name == "TryAcquire" && a.Answer < 0 { // it has the one column
			a.Pid = int32(a.Answer)
		}
	case refresh, probe:
		a.Held = held && here
		if a.Held {
			s.set(q.Idle, q.IdleInTransaction, false)
		} else if here {
			s.trouble[key] = trouble{verb: q.verb}
		}
	case release:
		a.Released = held && here && q.Pid == s.pid
		if a.Released {
			delete(s.held, key)
		}
		if q.name == "Release" && !a.Released { // it has the one column
			a.Pid = -a.Pid
		}
		if here && q.Pid == s.pid {
			s.set(q.Idle, q.IdleInTransaction, false)
			s.changed(q)
			if !a.Released && q.audited() {
				s.auditOwed = true
			}
		}
	case undo:
		a.Undone = held && g.shared == q.Shared
		if a.Undone {
			delete(s.held, key)
		}
	case terminate:
		a.Terminated = held && q.Pid == s.pid
		if a.Terminated {
			delete(s.held, key)
		}
	}
	return a
}

// grant answers an attempt.
func (s *session) grant(q *question, as *step) (fence, audit int64) {
	switch as.outcome {
	case heldElsewhere, staysHeldElsewhere:
		return -1, 0
	case onStandby:
		return -2, 0
	case fenceTooOld:
		return -3, 0
	case failsAfterGrant:
		s.trouble[q.key()] = trouble{tryAcquire, as.err}
	}
	pg := s.pg
	if _, held := s.held[q.key()]; held {
		pg.failf("TryAcquire of %q: the session holds it, and would need two unlocks", as.target)
	}
	g := grant{target: as.target, shared: q.Shared, leased: q.Lease != ""}
	if g.leased && as.outcome != failsAfterGrant { // an error takes settings back, though not locks
		idle := q.Lease
		if s.config.idle == "" {
			idle = ""
		}
		s.set(idle, q.Lease, s.temporary(q))
	}
	if q.audited() {
		pg.audit++
		g.audit = pg.audit
	}
	s.held[q.key()] = g
	switch fenced := q.Fence || q.audited() && !q.Shared; {
	case fenced && as.fence > 0:
		pg.fence = as.fence
	case fenced:
		pg.fence++
	case as.fence > 0 && q.name != "Turn":
		pg.failf("%s wants no fence", as)
		return 0, g.audit
	default:
		return 0, g.audit
	}
	return int64(pg.fence), g.audit
}

// unexpected fails the test, and the statement with it.
func (s *session) unexpected(q *question) error {
	what := fmt.Sprintf("%s of %s", q.verb, s.pg.name(q))
	hint := ""
	if q.verb == probe {
		hint = " (the session holds it already: script that with AlreadyHeld)"
	}
	s.pg.failf("unexpected %s%s: the next lock expectation is %s", what, hint, s.pg.next())
	return fmt.Errorf("mocks: unexpected %s", what)
}

// name is what q is about, as far as the script knows it.
func (pg *Postgres) name(q *question) string {
	if q.verb == auditLost {
		return fmt.Sprintf("the audit's row %d", q.AuditID)
	}
	for _, st := range pg.order {
		if pglock.KeyOf(st.target) == q.key() {
			return fmt.Sprintf("%q", st.target)
		}
	}
	return fmt.Sprintf("a target whose key is %d", q.Key)
}

func (pg *Postgres) fail(format string, args ...any) {
	pg.mu.Lock()
	defer pg.mu.Unlock()
	pg.failf(format, args...)
}
