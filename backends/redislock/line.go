package redislock

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/lease"
)

const (
	// presence is for how long a place in the line is kept for a waiter that is
	// not heard of.
	presence = 3 * time.Second
	// report is how often a waiter is heard of that can be woken.
	report = presence / 3
	// passable is the shortest lease of a lock that is given to a waiter without
	// its asking: the waiter counts the lease from when it asked last, which may
	// be report ago.
	passable = 5 * report
	// fresh is for how long after a question a waiter is given the lock. One that is
	// cut off meanwhile keeps others waiting until its lease ends.
	fresh = report * 3 / 2
	// wakeChannel begins the names of the channels, one for each Locker.
	wakeChannel = "swanlock:wake:"
)

// wait waits in the line of a single server. It asks when it is woken, when the
// holder's lease may have ended, and now and then, to keep its place. The release of
// the holder before it gives it the lock, if the lease is passable.
func (l *Locker) wait(ctx context.Context, target string, o swanlock.Options) (*lease.Lock, error) {
	if ctx.Err() != nil {
		return l.try(ctx, target, o)
	}
	a := l.attempt(target, o)
	a.waits = true
	r := l.request(a, target, o)
	woken := l.wakes.add(a.token)
	defer l.wakes.remove(a.token)
	var outage error
	for n, asked := 0, 0; ; n++ {
		if ctx.Err() != nil {
			_, _ = lease.Free(ctx, a)
			return nil, r.Failed(ctx, outage)
		}
		question := ""
		if asked++; woken != nil && r.Lease >= passable {
			question = strconv.Itoa(asked)
		}
		start := time.Now()
		call, cancel := context.WithTimeout(ctx, patience)
		fence, err := a.acquire(call, ms(presence), question)
		cancel()
		left := time.Duration(0)
		var held *heldError
		var quarantined *quarantineError
		switch {
		case err == nil:
			return lease.Granted(ctx, r, start, fence)
		case ctx.Err() != nil:
		case errors.As(err, &held):
			left, outage, n = held.left, nil, 0
		case errors.As(err, &quarantined):
			left, outage, n = quarantined.left, err, 0
		case passes(err):
			left, outage = lease.Backoff(n), err
		default:
			_, _ = lease.Free(ctx, a)
			return nil, r.Wrap(err)
		}
		if left == 0 {
			left = report
		}
		if woken == nil {
			left = min(left, lease.Backoff(3))
		}
		timer := time.NewTimer(min(left+time.Millisecond, report))
		select {
		case news := <-woken:
			// An older question may have been granted long ago.
			if fence, ok := granted(news, question); ok && (lease.Term{Length: r.Lease, Start: start}).Left(time.Now()) > 0 {
				timer.Stop()
				a.met(fence)
				return lease.Granted(ctx, r, start, fence)
			}
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// granted returns the fence of the grant that news, from release.lua, tells of, if that
// is the answer to the question.
func granted(news, question string) (fence uint64, ok bool) {
	answered, text, ok := strings.Cut(news, " ")
	if !ok || answered != question {
		return 0, false
	}
	fence, err := strconv.ParseUint(text, 10, 64)
	return fence, err == nil
}

// subscriber is what the clients of go-redis are besides redis.Scripter.
type subscriber interface {
	Subscribe(ctx context.Context, channels ...string) *redis.PubSub
}

// wakes wakes the waiters of one Locker. It is subscribed while there are some, and
// for a while after that.
type wakes struct {
	client  subscriber
	channel string

	mu      sync.Mutex
	waiters map[string]chan string // by token
	idle    *time.Timer            // ends the subscription
	end     func()                 // nil: there is none
}

func newWakes(client subscriber, channel string) *wakes {
	return &wakes{client: client, channel: channel, waiters: make(map[string]chan string)}
}

// linger is for how long a subscription without waiters is kept.
const linger = time.Second

// add returns a channel on which the waiter is woken, with what release.lua says of
// a grant. It is nil if it is not woken.
func (w *wakes) add(token string) <-chan string {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.idle != nil {
		w.idle.Stop()
	}
	if w.end == nil {
		ctx, cancel := context.WithCancel(context.Background())
		w.end = cancel
		go w.listen(ctx)
	}
	woken := make(chan string, 1)
	w.waiters[token] = woken
	return woken
}

func (w *wakes) remove(token string) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.waiters, token)
	if len(w.waiters) > 0 {
		return
	}
	if w.idle == nil {
		w.idle = time.AfterFunc(linger, w.stop)
	} else {
		w.idle.Reset(linger)
	}
}

func (w *wakes) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.waiters) == 0 && w.end != nil {
		w.end()
		w.end = nil
	}
}

// listen passes on what is published until ctx ends. Whenever it has subscribed,
// anew after the connection was lost, all waiters ask: they may have been told
// before.
func (w *wakes) listen(ctx context.Context) {
	subscription := w.client.Subscribe(ctx, w.channel)
	defer subscription.Close()
	messages := subscription.ChannelWithSubscriptions()
	for {
		select {
		case <-ctx.Done():
			return
		case m, ok := <-messages:
			switch m := m.(type) {
			case *redis.Subscription:
				w.wakeAll()
			case *redis.Message:
				token, news, _ := strings.Cut(m.Payload, " ")
				w.wake(token, news)
			}
			if !ok {
				return
			}
		}
	}
}

// wake wakes the waiter that has token.
func (w *wakes) wake(token, news string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if woken, ok := w.waiters[token]; ok {
		wake(woken, news)
	}
}

func (w *wakes) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, woken := range w.waiters {
		wake(woken, "")
	}
}

func wake(woken chan<- string, news string) {
	select {
	case woken <- news:
	default: // It will ask anyway.
	}
}
