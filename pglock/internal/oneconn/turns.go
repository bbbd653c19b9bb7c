package oneconn

import "context"

// Turns gives the use of a connection to one caller at a time.
type Turns struct{ taken chan struct{} }

// NewTurns returns Turns of which the first is free.
func NewTurns() Turns { return Turns{make(chan struct{}, 1)} }

// Take waits for a turn and reports whether it was had: not, if ctx ends, or over
// or quiet is closed, first.
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

// TryTake takes the turn if it is free now.
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
