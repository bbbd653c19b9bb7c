package main

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestBacklog: what is said is written in order, and nobody waits for a reader that
// does not read.
func TestBacklog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, w := io.Pipe()
		b := newBacklog(w)
		defer close(b.todo)
		began := time.Now()
		for i := range 100 {
			fmt.Fprintln(b, i)
		}
		if took := time.Since(began); took != 0 {
			t.Errorf("100 lines took %v that nobody reads", took)
		}
		b.flush()
		if took := time.Since(began); took != time.Second {
			t.Errorf("flush took %v, want a second", took)
		}
		var got strings.Builder
		go io.Copy(&got, r)
		b.flush()
		synctest.Wait()
		if took := time.Since(began); took != time.Second || !strings.HasPrefix(got.String(), "0\n1\n2\n") {
			t.Errorf("after %v it is written: %q", took, got.String())
		}
		w.Close()
	})
}
