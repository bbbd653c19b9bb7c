package election

import (
	"context"
	"errors"
	"time"

	"github.com/swanlake-io/swanlock/internal/several"
)

// Watch follows who leads, until ctx ends, and does not campaign. It needs LookUp.
func (e *Election) Watch(ctx context.Context) error {
	if e.holder == nil {
		return errors.New("election: Watch needs LookUp: a locker does not say who holds a target")
	}
	if err := e.check(); err != nil {
		return err
	}
	e.look(ctx)
	return context.Cause(ctx)
}

// lookBeside looks in the background, until end is called. The context that it returns
// ends if LookUp or OnLeader panics, and end panics with that then; likewise if it ends
// its goroutine.
func (e *Election) lookBeside(ctx context.Context) (_ context.Context, end func()) {
	wctx, stop := context.WithCancel(ctx)
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan any, 1)
	go several.Caught(func() { e.look(wctx) }, func(fate any) {
		if fate != nil {
			cancel()
		}
		ended <- fate
	})
	return ctx, func() {
		defer cancel()
		stop()
		several.Repeat(<-ended)
	}
}

// look asks who leads, from time to time.
func (e *Election) look(ctx context.Context) {
	for ctx.Err() == nil {
		e.mu.Lock()
		before := e.terms
		e.mu.Unlock()
		if owner, err := e.lookUp(ctx); err == nil && ctx.Err() == nil {
			e.seen(owner, before)
		}
		sleep(ctx, e.every)
	}
}

// maxLookUp is for how long a LookUp is waited for when it is to end. One by lib/pq
// may take for ever if the server has fallen silent.
const maxLookUp = 2 * time.Second

// lookUp calls holder in a goroutine, which it may leave, and panics if that does, or
// ends the goroutine if that does.
func (e *Election) lookUp(ctx context.Context) (owner string, err error) {
	patient, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(maxLookUp, cancel) })()
	type answer struct {
		owner string
		err   error
		fate  any
	}
	answers := make(chan answer, 1)
	go func() {
		var a answer
		several.Caught(func() { a.owner, a.err = e.holder(ctx, e.target) }, func(fate any) {
			a.fate = fate
			answers <- a
		})
	}()
	select {
	case a := <-answers:
		several.Repeat(a.fate)
		return a.owner, a.err
	case <-patient.Done():
		return "", context.Cause(patient)
	}
}

// seen notes what holder has answered. It does not know better while this process
// leads, nor if it was asked before this process began or ended to lead: terms is
// as it was then.
func (e *Election) seen(owner string, terms int) {
	e.telling.Lock()
	defer e.telling.Unlock()
	e.mu.Lock()
	stale := e.leads || e.terms != terms
	e.mu.Unlock()
	if !stale {
		e.tell(owner)
	}
}
