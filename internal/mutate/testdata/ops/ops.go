// Package ops has something for each operator.
package ops

import (
	"errors"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock/internal/mutate/testdata/ops/inner"
)

var errClosed = errors.New("closed")

type door struct {
	mu     sync.Mutex
	open   bool
	visits int
	since  time.Time
}

func (d *door) enter(_ string, late bool, notes ...string) (visits int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	defer d.note(notes)
	if !d.open || late && len(notes) < 2 {
		return 0, errClosed
	} else {
		d.visits++
	}
	d.open, d.visits = true, min(d.visits, 10)
	return d.visits, nil
}

func (*door) note([]string) {}

func sub[T int | float64](a, b T) T { return a - b }

func label(n int) string {
	switch n {
	case 1, 2:
		return "few"
	}
	return "many"
}

func (d *door) reset(c chan int) error {
	sent := time.Now()
	if err := wrap(errClosed, sub(d.visits, 3)); err != nil {
		return wrap(err, 1)
	}
	for i := 0; i < 3; i++ {
		select {
		case c <- i:
		case <-c:
			continue
		}
	}
	go d.note(nil)
	defer sub(d.visits, 3)
	d.began(sent, false)
	return errors.Join(errClosed, nil)
}

func (d *door) began(t time.Time, open bool) { d.since, d.open = t, open }

func wrap(err error, n int) error {
	if n > 0 {
		return err
	}
	return nil
}

func size(n uint) time.Duration {
	if n == 0 {
		return 5 * time.Second
	}
	return time.Duration(n/2) * time.Second
}

func last() string { return inner.Last("a", "b") }
