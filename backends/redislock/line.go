package redislock

import (
	"context"
	"errors"
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
	// wakeChannel begins the names of the channels, one for each Locker.
	wakeChannel = "swanlock:wake:"
)

// wait waits in the line of a single server. It asks when it is woken, when the
// holder's lease may have ended, and now and then, to keep its place.
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
	for n := 0; ; n++ {
		start := time.Now()
		call, cancel := context.WithTimeout(ctx, patience)
		fence, err := a.acquire(call, ms(presence))
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
		case <-woken:
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			_, _ = lease.Free(ctx, a)
			return nil, r.Failed(ctx, outage)
		}
		timer.Stop()
	}
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
	waiters map[string]chan struct{} // by token
	idle    *time.Timer              // ends the subscription
	end     func()                   // nil: there is none
}

func newWakes(client subscriber, channel string) *wakes {
	return &wakes{client: client, channel: channel, waiters: make(map[string]chan struct{})}
}

// linger is for how long a subscription without waiters is kept.
const linger = time.Second

// add returns a channel on which the waiter is woken. It is nil if it is not woken.
func (w *wakes) add(token string) <-chan struct{} {
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
	woken := make(chan struct{}, 1)
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
				w.wake(m.Payload)
			}
			if !ok {
				return
			}
		}
	}
}

// wake wakes the waiter that has token.
func (w *wakes) wake(token string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if woken, ok := w.waiters[token]; ok {
		wake(woken)
	}
}

func (w *wakes) wakeAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, woken := range w.waiters {
		wake(woken)
	}
}

func wake(woken chan<- struct{}) {
	select {
	case woken <- struct{}{}:
	default: // It will ask anyway.
	}
}
