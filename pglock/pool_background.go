package pglock

import (
	"context"
	"sync"
)

// A background runs the goroutines of a pool that no caller waits for, until
// Close has ended all sessions.
type background struct {
	life context.Context // ends when Close is called
	end  context.CancelFunc

	mu      sync.Mutex
	stopped bool // nothing is started any more
	work    sync.WaitGroup
}

func newBackground() *background {
	bg := &background{}
	bg.life, bg.end = context.WithCancel(context.Background())
	return bg
}

// spawn runs f, and returns false if the pool has stopped.
func (bg *background) spawn(f func()) bool {
	bg.mu.Lock()
	defer bg.mu.Unlock()
	if !bg.stopped {
		bg.work.Go(f)
	}
	return !bg.stopped
}

// stop waits until what was started has ended.
func (bg *background) stop() {
	bg.mu.Lock()
	bg.stopped = true
	bg.mu.Unlock()
	bg.work.Wait()
}
