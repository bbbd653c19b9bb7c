package main

import (
	"context"
	"database/sql"
	"slices"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// sessions are a Session on each connection.
func sessions(conns []*sql.Conn, opts ...pglock.SessionOption) (_ []swanlock.Locker, closeAll func()) {
	var lockers []swanlock.Locker
	var closers []func(context.Context) error
	for _, conn := range conns {
		s := pglock.NewSession(conn, opts...)
		lockers, closers = append(lockers, s), append(closers, s.Close)
	}
	return lockers, closing(closers)
}

// pools are n Pools on db, as n processes have them.
func pools(db *sql.DB, n int) (_ []swanlock.Locker, closeAll func()) {
	var lockers []swanlock.Locker
	var closers []func(context.Context) error
	for range n {
		p := must(pglock.NewPool(db))
		lockers, closers = append(lockers, p), append(closers, p.Close)
	}
	return lockers, closing(closers)
}

func closing(closers []func(context.Context) error) func() {
	return func() {
		for _, c := range closers {
			check(c(context.Background()))
		}
	}
}

// shared is one locker for n goroutines.
func shared(l swanlock.Locker, n int) []swanlock.Locker {
	return slices.Repeat([]swanlock.Locker{l}, n)
}
