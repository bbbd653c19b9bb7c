package pglock

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// A silence is whether the server answers the statements of a session, and what
// is done while it does not.
type silence struct {
	mu      sync.Mutex                    // held to begin and to end
	begun   atomic.Pointer[chan struct{}] // closed when the silence begins
	stalled atomic.Bool                   // a statement takes longer than callers wait for it
	spoke   atomic.Bool                   // the server has answered a statement of ours
	callers atomic.Pointer[callers]       // those that wait for the first answer
	// cancels counts the cancels that are under way on the server. cancelled
	// says that one of them was sent during the last statement.
	cancels   sync.WaitGroup
	cancelled atomic.Bool
}

// quiet returns a channel that is closed once the server has been silent for
// patience. After an answer there is a new channel.
func (s *silence) quiet() <-chan struct{} { return *s.begun.Load() }

// begin wakes the callers that wait for an answer. It reports whether the server
// was not silent before.
func (s *silence) begin() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stalled.Swap(true) {
		return false
	}
	close(*s.begun.Load())
	return true
}

// answered notes that the server is not silent any more.
func (s *silence) answered() {
	if s.stalled.Load() {
		s.cancels.Wait() // A cancel that arrives late would end the next statement.
		s.end()
	}
}

// end makes the channel that the next silence closes.
func (s *silence) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.begun.Load() == nil || s.stalled.Load() {
		quiet := make(chan struct{})
		s.begun.Store(&quiet)
		s.stalled.Store(false)
	}
}

// awaited returns how much longer callers wait for the session's first answer.
// It is 0 once the session has answered.
func (s *silence) awaited() time.Duration {
	c := s.callers.Load()
	if c == nil || s.spoke.Load() {
		return 0
	}
	return c.left()
}

// awaitFirst notes that a caller with the context ctx waits for the session's
// first answer, until gone is called.
func (s *silence) awaitFirst(ctx context.Context) (gone func()) {
	if s.spoke.Load() {
		return func() {}
	}
	s.callers.CompareAndSwap(nil, &callers{})
	return s.callers.Load().add(ctx)
}
