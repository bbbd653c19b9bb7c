package pglock_test

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestPoolWaitsThroughRestart: a waiter goes on through a restart of the
// server, which ends the holder's lock.
func TestPoolWaitsThroughRestart(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		srv, target := ownServer(t), newTarget(t)
		held := acquired(t, functions{connOf(t, openURL(t, driver, srv.URL()))}, target)
		p := newPool(t, openURL(t, driver, srv.URL()), pglock.WithLogger(nil))
		got := make(chan outcome, 1)
		go func() { got <- outcomeOf(p.Acquire(shortly(t), target)) }()
		admin := openURL(t, driver, srv.URL())
		eventually(t, "the waiter is in line", func() bool {
			return one[bool](t, admin, "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2)")
		})
		must(t, srv.Restart(bg, pgserver.Fast))
		next := (<-got).get(t)
		wantIs(t, held.Refresh(bg), swanlock.ErrLost)
		must(t, next.Release(bg))
	})
}

// TestPoolWaitsForAFullServer: a server that has no connection left is waited for
// until it has one, or ctx ends; a try does not wait.
func TestPoolWaitsForAFullServer(t *testing.T) {
	eachDriver(t, func(t *testing.T, name string) {
		srv := ownServer(t, pgserver.WithSetting("max_connections", "6"), pgserver.WithSetting("superuser_reserved_connections", "1"),
			pgserver.WithSetting("max_wal_senders", "0"))
		var full []*sql.Conn
		for db := openURL(t, name, srv.URL()); ; {
			conn, err := db.Conn(bg)
			if err != nil {
				if !strings.Contains(err.Error(), "too many clients") {
					t.Fatal(err)
				}
				break
			}
			full = append(full, conn)
		}
		p, target := newPool(t, openURL(t, name, srv.URL()), pglock.WithLogger(nil)), newTarget(t)
		if _, err := p.TryAcquire(bg, target); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a try on a full server: got %v, want what the server said", err)
		}
		ctx, cancel := context.WithTimeout(bg, 2*time.Second)
		_, err := p.Acquire(ctx, target)
		cancel()
		wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		if !strings.Contains(err.Error(), "too many clients") {
			t.Errorf("the error does not say why: %v", err)
		}
		got := make(chan outcome, 1)
		go func() { got <- outcomeOf(p.Acquire(shortly(t), target)) }()
		time.Sleep(200 * time.Millisecond) // a few attempts are in vain
		for _, conn := range full {
			conn.Raw(func(c any) error { hangUp(c); return driver.ErrBadConn })
		}
		must(t, (<-got).get(t).Release(bg))
	})
}

// deserted returns an address at which nothing listens, and the URL of a server there.
func deserted(t *testing.T) (address, url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	address = l.Addr().String()
	must(t, l.Close())
	return address, strings.Replace(server(t).URL(), server(t).Addr(), address, 1)
}

// TestPoolWaitsForARefusingServer: at first nothing listens on the server's
// port.
func TestPoolWaitsForARefusingServer(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		address, url := deserted(t)
		p, target := newPool(t, openURL(t, driver, url), pglock.WithLogger(nil)), newTarget(t)
		if _, err := p.TryAcquire(bg, target); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("a try without a server: got %v, want that of the connection", err)
		}
		ctx, cancel := context.WithTimeout(bg, 300*time.Millisecond)
		_, err := p.Acquire(ctx, target)
		cancel()
		wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		if !strings.Contains(err.Error(), "refused") {
			t.Errorf("the error does not say why: %v", err)
		}
		got := make(chan outcome, 1)
		go func() { got <- outcomeOf(p.Acquire(shortly(t), target)) }()
		time.Sleep(200 * time.Millisecond)
		forward(t, address, server(t).Addr())
		must(t, (<-got).get(t).Release(bg))
	})
}

// TestPoolClosedInAnOutage: a waiter that the pool's end ends is told so, although the
// server could not be used either.
func TestPoolClosedInAnOutage(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		_, url := deserted(t)
		p := newPool(t, openURL(t, driver, url), pglock.WithLogger(nil))
		got := make(chan outcome, 1)
		go func() { got <- outcomeOf(p.Acquire(shortly(t), newTarget(t))) }()
		time.Sleep(200 * time.Millisecond) // a few attempts are in vain
		must(t, p.Close(bg))
		if out := <-got; out.err == nil || errors.Is(out.err, swanlock.ErrNotAcquired) || !strings.Contains(out.err.Error(), "the pool is closed") {
			t.Errorf("got %v, want that the pool is closed", out.err)
		}
	})
}

// TestPoolWaitsWithoutAnOutage: the error of a wait in vain does not blame a server
// that has answered.
func TestPoolWaitsWithoutAnOutage(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		p, target := newPool(t, openDB(t, driver)), newTarget(t)
		held := acquired(t, p, target)
		ctx, cancel := context.WithTimeout(bg, 100*time.Millisecond)
		defer cancel()
		_, err := p.Acquire(ctx, target)
		wantIs(t, err, swanlock.ErrNotAcquired, context.DeadlineExceeded)
		if strings.Contains(err.Error(), "could not be used") {
			t.Errorf("got %v, of a server that could be used", err)
		}
		must(t, held.Release(bg))
	})
}

// TestPoolDoesNotWaitInVain: an error that will not go away by itself, such as
// a wrong password, is returned at once.
func TestPoolDoesNotWaitInVain(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, params := range []string{"dbname=nowhere", "user=nobody"} {
			p := newPool(t, openDB(t, driver, params))
			if _, err := p.Acquire(shortly(t), newTarget(t)); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("%s: got %v, want that of the server", params, err)
			}
		}
	})
}

// forward passes what comes to one address on to another until the test ends.
func forward(t *testing.T, from, to string) {
	t.Helper()
	l, err := net.Listen("tcp", from)
	must(t, err)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			up, err := net.Dial("tcp", to)
			if err != nil {
				client.Close()
				continue
			}
			for _, way := range [][2]net.Conn{{client, up}, {up, client}} {
				go func() {
					io.Copy(way[0], way[1])
					way[0].Close()
				}()
			}
		}
	}()
}
