package main

import (
	"io"
	"net"
	"os"
	"slices"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	childMain()
	os.Exit(m.Run())
}

// TestNetwork sends messages to a server that echoes them. None may come back
// before its round trip is over, and they must travel together: one after the
// other, they would need ten seconds.
func TestNetwork(t *testing.T) {
	const delay, messages = 100 * time.Millisecond, 50
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			io.Copy(conn, conn)
			conn.Close()
		}
	}()
	c := startChild("network", l.Addr().String(), delay.String())
	defer c.end()
	conn, err := net.Dial("tcp", c.answer())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	start := time.Now()
	sent := make(chan time.Time, messages)
	go func() {
		for i := range messages {
			sent <- time.Now()
			conn.Write([]byte{byte(i)})
			time.Sleep(time.Millisecond) // a packet of its own
		}
		conn.(*net.TCPConn).CloseWrite()
	}()
	for i := range messages {
		var got [1]byte
		if _, err := io.ReadFull(conn, got[:]); err != nil {
			t.Fatal(err)
		}
		if got[0] != byte(i) {
			t.Fatalf("message %d is %d", i, got[0])
		}
		if took := time.Since(<-sent); took < 2*delay {
			t.Errorf("message %d was back after %v, with %v of network in each direction", i, took, delay)
		}
	}
	if took := time.Since(start); took > 5*time.Second {
		t.Errorf("%d messages took %v: they wait for each other", messages, took)
	}
	if n, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after the end: %d bytes, %v; want EOF", n, err)
	}
}

// TestAlarm looks at the median, which is above a millisecond with time.Sleep.
func TestAlarm(t *testing.T) {
	a := newAlarm()
	defer a.close()
	var naps []time.Duration
	for range 100 {
		start := time.Now()
		a.sleep(oneWay)
		naps = append(naps, time.Since(start))
	}
	slices.Sort(naps)
	t.Logf("%v to %v, median %v", naps[0], naps[99], naps[50])
	if naps[0] < oneWay {
		t.Errorf("it slept %v, not %v", naps[0], oneWay)
	}
}
