package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A kind is something that is done with a locker. It leaves nothing held.
type kind struct {
	name   string
	weight int
	do     func(ctx context.Context, w *worker) error
}

// kinds is what the load is made of.
var kinds = []kind{
	{"try", 4, try},
	{"acquire", 2, acquire},
	{"fence", 2, fence},
	{"shared", 2, shared},
	{"TTL, refreshed", 1, refreshed},
	{"TTL, expired", 1, expired},
	{"contended", 4, contended},
	{"cancelled", 2, cancelled},
}

// What became of it.
const (
	done    = iota
	cut     // by the end of the context, while it waited
	refused // somebody else holds it
	lost    // with the session
	failed
	nOutcomes
)

var outcomes = [nOutcomes]string{"done", "cut short", "refused", "lost", "failed"}

func outcomeOf(err error) int {
	switch {
	case err == nil:
		return done
	case errors.Is(err, swanlock.ErrNotAcquired) && errors.Is(err, context.DeadlineExceeded):
		return cut
	case errors.Is(err, swanlock.ErrNotAcquired):
		return refused
	case errors.Is(err, swanlock.ErrLost):
		return lost
	}
	return failed
}

// A worker does one thing after the other with a locker.
type worker struct {
	*station
	run   string // begins every target
	own   string // a target of its own
	first int    // the kind to begin with, so that even a short run has them all
	steps int
	fence uint64 // the last one
}

// pace is the mean pause between two things that a worker does.
const pace = 60 * time.Millisecond

// patience is how long one thing may take.
const patience = 10 * time.Second

// step does something, and notes what became of it.
func (w *worker) step(t *tally) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	k := pick()
	if w.steps++; w.steps == 1 {
		k = kinds[w.first%len(kinds)]
	}
	err := w.does(ctx, k)
	if errors.Is(err, sql.ErrConnDone) && !w.heals { // it went with the lock that expired before
		w.close(ctx)
		err = w.does(ctx, k)
	}
	if outcome := t.note(k.name, err); outcome >= lost && !w.heals {
		w.close(ctx)
	}
}

func (w *worker) does(ctx context.Context, k kind) error {
	if err := w.ready(ctx); err != nil {
		return err
	}
	return k.do(ctx, w)
}

// pick draws a kind by its weight.
func pick() kind {
	sum := 0
	for _, k := range kinds {
		sum += k.weight
	}
	n := rand.IntN(sum)
	for _, k := range kinds {
		if n -= k.weight; n < 0 {
			return k
		}
	}
	panic("the weights do not add up")
}

func try(ctx context.Context, w *worker) error {
	l, err := w.TryAcquire(ctx, w.own)
	if err != nil {
		return err
	}
	return errors.Join(l.Refresh(ctx), l.Release(ctx))
}

func acquire(ctx context.Context, w *worker) error {
	l, err := w.Acquire(ctx, w.own, swanlock.WithOwner("soak"))
	if err != nil {
		return err
	}
	return l.Release(ctx)
}

func fence(ctx context.Context, w *worker) error {
	l, err := w.TryAcquire(ctx, w.own, swanlock.WithFence())
	if err != nil {
		return err
	}
	before, now := w.fence, l.Info().Fence
	w.fence = now
	if err := l.Release(ctx); err != nil {
		return err
	}
	if now <= before {
		return fmt.Errorf("the fence %d came after %d", now, before)
	}
	return nil
}

func shared(ctx context.Context, w *worker) error {
	l, err := w.TryAcquire(ctx, w.run+"readers", swanlock.WithShared())
	if err != nil {
		return err
	}
	time.Sleep(rand.N(10 * time.Millisecond))
	return l.Release(ctx)
}

func refreshed(ctx context.Context, w *worker) error {
	l, err := w.TryAcquire(ctx, w.own, swanlock.WithTTL(600*time.Millisecond), swanlock.WithAutoRefresh())
	if err != nil {
		return err
	}
	select {
	case <-l.Done():
	case <-time.After(800 * time.Millisecond):
	}
	return l.Release(ctx)
}

func expired(ctx context.Context, w *worker) error {
	l, err := w.TryAcquire(ctx, w.own, swanlock.WithTTL(100*time.Millisecond))
	if err != nil {
		return err
	}
	<-l.Done()
	err = l.Release(ctx)
	switch {
	case errors.Is(err, swanlock.ErrExpired):
		return nil
	case err == nil:
		return errors.New("a lock that had expired was released without an error")
	}
	return err
}

// acquireContended waits for the target that all contend for, as a writer or as
// a reader.
func (w *worker) acquireContended(ctx context.Context) (swanlock.DistributedLock, error) {
	var reader swanlock.Option
	if rand.IntN(3) == 0 {
		reader = swanlock.WithShared()
	}
	return w.Acquire(ctx, w.run+"contended", reader)
}

func contended(ctx context.Context, w *worker) error {
	l, err := w.acquireContended(ctx)
	if err != nil {
		return err
	}
	time.Sleep(rand.N(40 * time.Millisecond))
	return l.Release(ctx)
}

func cancelled(ctx context.Context, w *worker) error {
	short, cancel := context.WithTimeout(ctx, rand.N(20*time.Millisecond))
	defer cancel()
	l, err := w.acquireContended(short)
	if err != nil {
		return err
	}
	<-short.Done()
	return l.Release(short)
}

// A station is a locker that is opened again after each close. Several workers
// may share one that heals itself, a Pool.
type station struct {
	name  string
	heals bool
	open  func(context.Context) (opened, error)
	opened
}

// opened is a locker, its connection if it uses a single one, and the function
// that closes it.
type opened struct {
	swanlock.Locker
	conn *sql.Conn
	shut func(context.Context) error
}

func (s *station) ready(ctx context.Context) (err error) {
	if s.Locker == nil {
		s.opened, err = s.open(ctx)
	}
	return err
}

func (s *station) close(ctx context.Context) error {
	if s.Locker == nil {
		return nil
	}
	err := s.shut(ctx)
	s.opened = opened{}
	return err
}

// stationsOn are the ways to take locks on db: for each driver the same.
func stationsOn(db *sql.DB, driver string) []*station {
	pool := func(opts ...pglock.PoolOption) func(context.Context) (opened, error) {
		return func(context.Context) (opened, error) {
			p, err := pglock.NewPool(db, append(opts, pglock.WithLogger(nil), pglock.WithMaxWaiters(2))...)
			if err != nil {
				return opened{}, err
			}
			return opened{p, nil, p.Close}, nil
		}
	}
	onConn := func(locker func(*sql.Conn) (swanlock.Locker, func(context.Context) error)) func(context.Context) (opened, error) {
		return func(ctx context.Context) (opened, error) {
			conn, err := db.Conn(ctx)
			if err != nil {
				return opened{}, err
			}
			l, shut := locker(conn)
			return opened{l, conn, func(ctx context.Context) error { return errors.Join(shut(ctx), conn.Close()) }}, nil
		}
	}
	session := func(opts ...pglock.SessionOption) func(context.Context) (opened, error) {
		return onConn(func(conn *sql.Conn) (swanlock.Locker, func(context.Context) error) {
			s := pglock.NewSession(conn, append(opts, pglock.WithLogger(nil))...)
			return s, s.Close
		})
	}
	return []*station{
		{name: driver + ", Pool", heals: true, open: pool()},
		{name: driver + ", Pool with audit", heals: true, open: pool(pglock.WithAudit())},
		{name: driver + ", Session", open: session()},
		{name: driver + ", Session with audit", open: session(pglock.WithAudit())},
		{name: driver + ", functions", open: onConn(func(conn *sql.Conn) (swanlock.Locker, func(context.Context) error) {
			return functions{conn}, func(context.Context) error { return nil }
		})},
	}
}

// functions is the package's functions as a locker.
type functions struct{ conn *sql.Conn }

func (f functions) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return lockOf(pglock.TryAcquire(ctx, f.conn, target, opts...))
}

func (f functions) Acquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	return lockOf(pglock.Acquire(ctx, f.conn, target, opts...))
}

func lockOf(l *pglock.PostgresLock, err error) (swanlock.DistributedLock, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}
