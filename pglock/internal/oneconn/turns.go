package oneconn

import "context"

// Turns is a mutex whose Lock can be given up: one caller at a time has the
// turn, which is the exclusive use of a connection.
type Turns struct{ taken chan struct{} }

// NewTurns returns Turns of which no caller has the turn.
func NewTurns() Turns { return Turns{make(chan struct{}, 1)} }

// Take waits for the turn, and reports whether it was taken. It was not if ctx
// has ended, or over or quiet was closed, before the turn was free.
func (t Turns) Take(ctx context.Context, over, quiet <-chan struct{}) bool {
	if t.TryTake() {
		return true
	}
	select {
	case t.taken <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	case <-over:
		return false
	case <-quiet:
		return false
	}
}

// TryTake takes the turn if it is free now, and reports whether it did.
func (t Turns) TryTake() bool {
	select {
	case t.taken <- struct{}{}:
		return true
	default:
		return false
	}
}

// Give ends the turn.
func (t Turns) Give() { <-t.taken }
