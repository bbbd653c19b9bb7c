package pgtest_test

import (
	"context"
	"errors"
	"net"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

// aWhile is how long a test looks at something that must not happen.
const aWhile = 300 * time.Millisecond

// startsUp reports whether the server answers a startup message within a time.
func startsUp(t *testing.T, p *pgtest.Proxy, within time.Duration) bool {
	t.Helper()
	u, err := url.Parse(p.URL)
	pgtest.Must(t, err)
	conn, err := net.Dial("tcp", u.Host) // TCP itself is answered
	pgtest.Must(t, err)
	t.Cleanup(func() { conn.Close() })
	_, err = conn.Write([]byte("\x00\x00\x00\x17\x00\x03\x00\x00user\x00postgres\x00\x00"))
	pgtest.Must(t, err)
	conn.SetReadDeadline(time.Now().Add(within))
	_, err = conn.Read(make([]byte, 1))
	return !errors.Is(err, os.ErrDeadlineExceeded)
}

// TestProxySilence: connections that there are and new ones hang, and so does
// what a driver sends to cancel; nothing reaches the server. When the silence
// ends, what was sent arrives.
func TestProxySilence(t *testing.T) {
	pgtest.EachDriver(t, func(t *testing.T, driver string) {
		p := pgtest.NewProxy(t)
		defer p.Resume()
		o := pgtest.Observe(t)
		conn := pgtest.ConnOf(t, pgtest.OpenURL(t, driver, p.URL))
		pid := pgtest.PIDOf(t, conn)
		arrived := func() bool { return o.LocksOf(pid) > 0 }

		p.Silence()
		ran := make(chan error, 1)
		go func() {
			_, err := conn.ExecContext(pgtest.Background, "SELECT pg_advisory_lock_shared(1)")
			ran <- err
		}()
		if startsUp(t, p, aWhile) {
			t.Error("a new connection is answered")
		}
		if len(ran) > 0 {
			t.Error("a statement returned on the silent network")
		}
		if arrived() {
			t.Error("the statement reached the server")
		}
		if !o.Alive(pid) {
			t.Error("the server noticed")
		}

		p.Resume()
		pgtest.Must(t, <-ran)
		if !arrived() {
			t.Error("the statement did not arrive after the silence")
		}
		if !startsUp(t, p, pgtest.Soon) {
			t.Error("a new connection is not answered after the silence")
		}
	})
}

// TestProxySilenceOfCancel: the cancel of a statement that runs does not reach
// the server. lib/pq waits for it.
func TestProxySilenceOfCancel(t *testing.T) {
	pgtest.EachDriver(t, func(t *testing.T, driver string) {
		p := pgtest.NewProxy(t)
		o := pgtest.Observe(t)
		conn := pgtest.ConnOf(t, pgtest.OpenURL(t, driver, p.URL))
		pid := pgtest.PIDOf(t, conn)
		active := func() bool {
			return pgtest.One[bool](t, o.DB, "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1::int AND state = 'active')", pid)
		}
		ctx, cancel := context.WithCancel(pgtest.Background)
		ran := make(chan error, 1)
		go func() {
			_, err := conn.ExecContext(ctx, "SELECT pg_sleep(60)")
			ran <- err
		}()
		pgtest.Eventually(t, "it runs", active)
		p.Silence()
		cancel()
		time.Sleep(aWhile)
		if !active() {
			t.Error("the cancel reached the server")
		}
		if pgtest.IsPQ(driver) && len(ran) > 0 {
			t.Error("lib/pq returned before its cancel was answered")
		}
		p.Resume()
		if err := <-ran; err == nil {
			t.Error("the statement was not cancelled")
		}
		pgtest.Eventually(t, "the server has heard of it", func() bool { return !active() })
	})
}

// TestProxySwallowNext: so many new connections are never answered, and no other.
func TestProxySwallowNext(t *testing.T) {
	p := pgtest.NewProxy(t)
	there := pgtest.ConnOf(t, pgtest.OpenURL(t, "pgx", p.URL))
	p.SwallowNext(2)
	for i, want := range []bool{false, false, true, true} {
		within := aWhile
		if want {
			within = pgtest.Soon
		}
		if got := startsUp(t, p, within); got != want {
			t.Errorf("connection %d is answered: %t, want %t", i, got, want)
		}
		pgtest.PIDOf(t, there)
	}
	if got := p.Swallowed.Load(); got != 2 {
		t.Errorf("%d connections were swallowed, want 2", got)
	}
}

// TestProxyCutOff: one connection is cut off, and neither end hears of it: not
// the client of its backend's end, nor the server of the client's.
func TestProxyCutOff(t *testing.T) {
	pgtest.EachDriver(t, func(t *testing.T, driver string) {
		p := pgtest.NewProxy(t)
		o := pgtest.Observe(t)
		db := pgtest.OpenURL(t, driver, p.URL)
		cut, other := pgtest.ConnOf(t, db), pgtest.ConnOf(t, db)
		pid := pgtest.PIDOf(t, cut)
		defer p.CloseAll()
		p.CutOff(t, pid)
		ran := make(chan error, 1)
		go func() {
			_, err := cut.ExecContext(pgtest.Background, "SELECT 1")
			ran <- err
		}()
		time.Sleep(aWhile)
		pgtest.PIDOf(t, other)
		if !o.Alive(pid) {
			t.Error("the server noticed")
		}
		o.Kill(pid)
		time.Sleep(aWhile)
		if len(ran) > 0 {
			t.Error("the client noticed")
		}
		p.CloseAll()
		<-ran
	})
}
