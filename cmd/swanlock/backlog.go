package main

import (
	"bytes"
	"io"
	"time"
)

// A backlog writes to another writer in the background, so that nobody waits for
// one that does not read: a guard that waits lets its command outlive the lock.
// What is more than a backlog holds is lost.
type backlog struct {
	w    io.Writer
	todo chan func()
}

func newBacklog(w io.Writer) *backlog {
	b := &backlog{w, make(chan func(), 64)}
	go func() {
		for f := range b.todo {
			f()
		}
	}()
	return b
}

func (b *backlog) Write(p []byte) (int, error) {
	text := bytes.Clone(p)
	select {
	case b.todo <- func() { b.w.Write(text) }:
	default:
	}
	return len(p), nil
}

// flush waits until all is written, for a second at most.
func (b *backlog) flush() {
	late := time.After(time.Second)
	written := make(chan struct{})
	select {
	case b.todo <- func() { close(written) }:
	case <-late:
		return
	}
	select {
	case <-written:
	case <-late:
	}
}
