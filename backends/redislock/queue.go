package redislock

import (
	"runtime"
	"sync"
	"time"
)

// A queue lets the calls of many goroutines travel together: while senders wait for
// the server, what others have to send gathers.
type queue struct {
	run  func([]call)
	most int         // senders, as a rule
	next chan func() // to a goroutine that has nothing to do

	mu      sync.Mutex
	calls   []call
	senders int
	late    *time.Timer // goes off when the first of calls has waited for slow
}

// slow is for how long a call waits for senders, which may have connections that are
// dead, before there is another.
const slow = 5 * time.Millisecond

func newQueue(run func([]call), most int) *queue {
	q := &queue{run: run, most: most, next: make(chan func())}
	q.late = time.AfterFunc(slow, q.addSender)
	return q
}

// send has c run in another goroutine.
func (q *queue) send(c call) {
	q.mu.Lock()
	q.calls = append(q.calls, c)
	wait := q.senders >= q.most
	if wait && len(q.calls) == 1 {
		q.late.Reset(slow)
	}
	q.mu.Unlock()
	if !wait {
		q.addSender()
	}
}

// addSender adds a sender, if there is something to send.
func (q *queue) addSender() {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.calls) > 0 {
		q.senders++
		q.spawn(q.sender)
	}
}

// sender sends what has gathered, until there is nothing.
func (q *queue) sender() {
	for {
		runtime.Gosched() // to those that have something to send
		q.mu.Lock()
		calls := q.calls
		q.calls = nil
		if len(calls) == 0 {
			q.senders--
		}
		q.mu.Unlock()
		if len(calls) == 0 {
			return
		}
		q.run(calls)
	}
}

// idle is for how long a goroutine without a call waits for the next.
const idle = 100 * time.Millisecond

// spawn runs f in a goroutine, if possible in one that has made calls before: its
// stack has the size that it takes, which is a fifth of the cost of a call.
func (q *queue) spawn(f func()) {
	select {
	case q.next <- f:
		return
	default:
	}
	go func() {
		timer := time.NewTimer(idle)
		defer timer.Stop()
		for {
			f()
			timer.Reset(idle)
			select {
			case f = <-q.next:
			case <-timer.C:
				return
			}
		}
	}()
}
