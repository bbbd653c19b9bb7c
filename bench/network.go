package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

// oneWay is how long a network's bytes travel in each direction, so that a round
// trip takes 1 ms more.
const oneWay = 500 * time.Microsecond

// overNetwork runs a row whose contenders have a network between them and the
// servers: for each server, a process that all connections go through.
func (h *harness) overNetwork(row func(far *harness)) {
	far := *h
	far.network = "/network=1ms"
	for _, addr := range []*string{&far.postgresAddr, &far.redis, &far.etcd} {
		if *addr == "" {
			continue
		}
		c := startChild("network", *addr, oneWay.String())
		defer c.end()
		*addr = c.answer()
	}
	row(&far)
	h.claims = far.claims
}

// serveNetwork is the process: a network in front of the server at args[0].
func serveNetwork(args []string) {
	delay := must(time.ParseDuration(args[1]))
	l := must(net.Listen("tcp", "127.0.0.1:0"))
	fmt.Println(l.Addr())
	go func() {
		for {
			client := must(l.Accept())
			server, err := net.Dial("tcp", args[0])
			if err != nil {
				client.Close()
				continue
			}
			go join(client.(*net.TCPConn), server.(*net.TCPConn), delay)
		}
	}()
	io.Copy(io.Discard, os.Stdin)
}

// A packet is some bytes on their way.
type packet struct {
	due   time.Time
	bytes []byte
}

func join(client, server *net.TCPConn, delay time.Duration) {
	defer client.Close()
	defer server.Close()
	var both sync.WaitGroup
	both.Go(func() { carry(server, client, delay) })
	both.Go(func() { carry(client, server, delay) })
	both.Wait()
}

// carry takes what comes from one end to the other. Each packet travels at its own
// time, beside the others: a network delays, and does not limit.
func carry(to, from *net.TCPConn, delay time.Duration) {
	way := make(chan packet, 1<<12)
	var delivery sync.WaitGroup
	delivery.Go(func() { deliver(to, way) })
	buf := make([]byte, 64<<10)
	var n int
	var err error
	for err == nil {
		n, err = from.Read(buf)
		way <- packet{time.Now().Add(delay), bytes.Clone(buf[:n])}
	}
	close(way)
	delivery.Wait()
}

func deliver(to *net.TCPConn, way <-chan packet) {
	a := newAlarm()
	defer a.close()
	for p := range way {
		a.sleep(time.Until(p.due))
		if _, err := to.Write(p.bytes); err != nil {
			to.Close() // which ends both directions
		}
	}
	to.CloseWrite()
}
