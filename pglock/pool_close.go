package pglock

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/swanlake-io/swanlock/pglock/internal/oneconn"
)

// Close refuses new work at once, waits until every lock is released or ctx
// ends, and releases what is still held. It gives the connections back to the
// *sql.DB, which stays open. If ctx ended first, the error says so and names some
// of what was held, joined with the errors of the releases. If the server does not
// answer soon after that, Close returns, and the sessions are ended in the
// background. A second call does the same.
//
// A lock without a TTL that is never released, or whose handle was dropped and that
// the garbage collector has not found yet, keeps Close waiting: give ctx an end.
func (p *Pool) Close(ctx context.Context) error {
	long := cleanupGrace(ctx)
	p.keys.close()
	p.end()
	var errs []error
	select {
	case <-p.keys.drained:
	case <-ctx.Done():
		errs = append(errs, fmt.Errorf("pglock: close: locks were still held%s: %w", p.kept(), context.Cause(ctx)))
	}
	closed := make(chan error)
	left := make(chan struct{})
	go func() {
		defer close(closed)
		for err := range p.closeSessions() {
			select {
			case closed <- err:
			case <-left:
			}
		}
		p.stop()
	}()
	var timer <-chan time.Time
	ended := ctx.Done()
	for {
		select {
		case err, ok := <-closed:
			if !ok {
				return errors.Join(errs...)
			}
			errs = append(errs, err)
		case <-ended:
			timer, ended = time.After(long), nil
		case <-timer:
			close(left)
			return errors.Join(append(errs, fmt.Errorf("pglock: close: sessions are still being ended: %w", oneconn.ErrSilent))...)
		}
	}
}

// kept names what is held, for Close's error: three targets at most, and how many
// there are beyond.
func (p *Pool) kept() string {
	var targets []string
	for _, s := range p.sessions.all() {
		if !s.isOpen() {
			continue
		}
		for _, h := range s.led.holds() {
			if h.over() == nil {
				targets = append(targets, quote(h.info.Target))
			}
		}
	}
	if len(targets) == 0 {
		return ""
	}
	slices.Sort(targets)
	if more := len(targets) - 3; more > 0 {
		targets = append(targets[:3], fmt.Sprintf("%d more", more))
	}
	return " (" + strings.Join(targets, ", ") + ")"
}

// closeSessions closes all sessions, side by side, and returns their errors.
func (p *Pool) closeSessions() <-chan error {
	sessions := p.sessions.all()
	errs := make(chan error, len(sessions))
	var closing sync.WaitGroup
	for _, s := range sessions {
		closing.Go(func() {
			if s.opened(context.Background()) == nil {
				err := s.solo(context.Background(), func(_ context.Context, tn turn) error { return s.close(tn) })
				// The holders of a session that is gone were told already.
				if !errors.Is(err, errSessionGone) && !errors.Is(err, errPoolClosed) {
					errs <- err
				}
			}
			p.sessions.forget(s, false)
		})
	}
	go func() {
		closing.Wait()
		close(errs)
	}()
	return errs
}
