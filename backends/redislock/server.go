package redislock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/swanlake-io/swanlock/internal/outage"
)

//go:embed guard.lua
var guardLua string

//go:embed line.lua
var lineLua string

//go:embed acquire.lua
var acquireLua string

//go:embed refresh.lua
var refreshLua string

//go:embed release.lua
var releaseLua string

// The scripts. The first argument of a guarded one says whether the server had
// it in its cache.
var (
	acquireScript = newScript(true, guardLua+lineLua+acquireLua)
	refreshScript = newScript(true, guardLua+refreshLua)
	releaseScript = newScript(false, lineLua+releaseLua)
)

type script struct {
	*redis.Script
	text    string
	guarded bool
}

func newScript(guarded bool, text string) script {
	return script{redis.NewScript(text), text, guarded}
}

// A server is one of those that vote.
type server struct {
	client redis.Scripter
	next   chan func() // to a goroutine that has nothing to do

	mu      sync.Mutex
	waiting int       // calls under way
	heard   time.Time // when it last answered, or was asked while no call was under way
}

// run runs a script.
func (s *server) run(ctx context.Context, script script, keys []string, args []any) (any, error) {
	answer, err := s.client.EvalSha(ctx, script.Hash(), keys, args...).Result()
	if redis.HasErrorPrefix(err, "NOSCRIPT") {
		// Sent whole, and never loaded otherwise: guard.lua relies on it.
		if script.guarded {
			args[0] = "1"
		}
		answer, err = s.client.Eval(ctx, script.text, keys, args...).Result()
	}
	if redis.HasErrorPrefix(err, "NOQUARANTINE") {
		err = fmt.Errorf("%w: redislock cannot see whether this server restarts: %w: see WithoutQuarantine", errors.ErrUnsupported, err)
	}
	return answer, err
}

// idle is for how long a goroutine without a call waits for the next.
const idle = 100 * time.Millisecond

// spawn runs f in a goroutine, if possible in one that has made calls before: its
// stack has the size that it takes, which is a fifth of the cost of a call.
func (s *server) spawn(f func()) {
	select {
	case s.next <- f:
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
			case f = <-s.next:
			case <-timer.C:
				return
			}
		}
	}()
}

// maxSilence is for how long a server may leave calls without an answer before
// no more are sent to it.
const maxSilence = time.Second

var errSilent = errors.New("redislock: the server does not answer")

// begin notes that a call begins, or refuses it.
func (s *server) begin(force bool) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == 0 {
		s.heard = now
	} else if !force && now.Sub(s.heard) > maxSilence {
		return errSilent
	}
	s.waiting++
	return nil
}

func (s *server) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	if answered(err) {
		s.heard = time.Now()
	}
}

// answered reports whether err, which may be nil, is a server's answer.
func answered(err error) bool {
	var reply redis.Error
	return err == nil || errors.As(err, &reply)
}

// passes reports whether err may be gone when the call is repeated: the server
// cannot be reached, starts, or is told to take over.
func passes(err error) bool {
	for _, prefix := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY"} {
		if redis.HasErrorPrefix(err, prefix) {
			return true
		}
	}
	for _, passing := range []error{ErrQuarantined, errSplit, errSilent, redis.ErrPoolTimeout, redis.ErrPoolExhausted} {
		if errors.Is(err, passing) {
			return true
		}
	}
	return outage.Is(err)
}

// ms is a duration in whole milliseconds, rounded up.
func ms(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Millisecond-1)/time.Millisecond), 10)
}
