package redislock

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"math"
	"slices"
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

// The scripts.
var (
	acquireScript = newScript(true, guardLua+lineLua+acquireLua)
	refreshScript = newScript(true, guardLua+refreshLua)
	releaseScript = newScript(false, guardLua+lineLua+releaseLua)
)

type script struct {
	*redis.Script
	text  string
	votes bool // it may give its token a vote
}

func newScript(votes bool, text string) script {
	return script{redis.NewScript(text), text, votes}
}

// A server is one of those that vote.
type server struct {
	client redis.Scripter
	queue  *queue

	mu      sync.Mutex
	waiting int       // calls under way
	owing   time.Time // when it was first asked since it last answered; zero: it was not
	asked   time.Time // when it was last asked
}

// A pipeliner sends several commands at once, as the clients of go-redis do.
type pipeliner interface {
	Pipelined(ctx context.Context, fn func(redis.Pipeliner) error) ([]redis.Cmder, error)
}

func newServer(client redis.Scripter) *server {
	s := &server{client: client}
	if p, ok := client.(pipeliner); ok {
		s.queue = newQueue(func(calls []call) { s.runTogether(p, calls) }, 2)
	} else {
		s.queue = newQueue(s.runApart, math.MaxInt)
	}
	return s
}

// A call is a script to run.
type call struct {
	ctx    context.Context
	script script
	keys   []string
	args   []any
	done   func(answer any, err error)
}

func (s *server) run(c call) {
	sent := cached(s.client, c)
	if lacksScript(sent) {
		sent = whole(s.client, c)
	}
	c.end(sent)
}

// cached runs a script that the server has in its cache, if it has.
func cached(client redis.Scripter, c call) (sent *redis.Cmd) {
	defer func() { sent = outlived(recover(), c, sent) }()
	return client.EvalSha(c.ctx, c.script.Hash(), c.keys, c.args...)
}

// whole runs a script that the server did not have, so that it has it from then on. It
// is never loaded otherwise: acquire.lua relies on it.
func whole(client redis.Scripter, c call) (sent *redis.Cmd) {
	defer func() { sent = outlived(recover(), c, sent) }()
	c.args[0] = "whole"
	return client.Eval(c.ctx, c.script.text, c.keys, c.args...)
}

// outlived returns sent or, if the client has panicked, as a hook of its may, a command
// that has failed. A panic would end the program: the caller is in another goroutine.
func outlived(panicked any, c call, sent *redis.Cmd) *redis.Cmd {
	if panicked != nil {
		sent = redis.NewCmd(c.ctx)
		sent.SetErr(fmt.Errorf("redislock: the client panicked: %v", panicked))
	}
	return sent
}

func lacksScript(sent *redis.Cmd) bool { return redis.HasErrorPrefix(sent.Err(), "NOSCRIPT") }

// runApart runs calls at the same time, so that one which hangs holds up no other.
func (s *server) runApart(calls []call) {
	for _, c := range calls[1:] {
		s.queue.spawn(func() { s.run(c) })
	}
	s.run(calls[0])
}

func (s *server) runTogether(p pipeliner, calls []call) {
	if len(calls) == 1 {
		s.run(calls[0])
		return
	}
	var lacking []call
	for i, sent := range together(p, calls, cached) {
		if lacksScript(sent) {
			lacking = append(lacking, calls[i])
		} else {
			calls[i].end(sent)
		}
	}
	if len(lacking) > 0 {
		for i, sent := range together(p, lacking, whole) {
			lacking[i].end(sent)
		}
	}
}

// together sends calls in one pipeline.
func together(p pipeliner, calls []call, run func(redis.Scripter, call) *redis.Cmd) (sent []*redis.Cmd) {
	sent = make([]*redis.Cmd, 0, len(calls))
	defer func() {
		if panicked := recover(); panicked != nil {
			sent = sent[:0]
			for _, c := range calls {
				sent = append(sent, outlived(panicked, c, nil))
			}
		}
	}()
	_, _ = p.Pipelined(calls[0].ctx, func(p redis.Pipeliner) error {
		for _, c := range calls {
			sent = append(sent, run(p, c))
		}
		return nil
	})
	return sent
}

// end tells of the answer to c, which was sent.
func (c call) end(sent *redis.Cmd) {
	answer, err := sent.Result()
	if redis.HasErrorPrefix(err, "NOQUARANTINE") {
		err = fmt.Errorf("%w: redislock cannot see whether this server restarts: %w: see WithoutQuarantine", errors.ErrUnsupported, err)
	}
	c.done(answer, err)
}

// maxSilence is for how long a server may leave calls without an answer before it is
// sent others seldom: the next one when it has been silent for twice as long.
const maxSilence = time.Second

var errSilent = errors.New("redislock: the server does not answer")

// begin notes that a call begins, or refuses it.
func (s *server) begin(force bool) error {
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.waiting == 0 || s.owing.IsZero() {
		s.owing = now
	}
	silence := now.Sub(s.owing)
	if !force && silence > maxSilence && silence < 2*s.asked.Sub(s.owing) {
		return errSilent
	}
	s.asked = now
	s.waiting++
	return nil
}

func (s *server) end(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting--
	if answered(err) {
		s.owing = time.Time{}
	}
}

// answered reports whether err, which may be nil, is a server's answer.
func answered(err error) bool {
	return err == nil || errors.As(err, new(redis.Error))
}

// passes reports whether err may be gone when the call is repeated: the server
// cannot be reached, starts, is full, is told to take over, or misses its replicas. Of
// several servers' errors one is enough.
func passes(err error) bool {
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		return slices.ContainsFunc(joined.Unwrap(), passes)
	}
	for _, prefix := range []string{"LOADING", "READONLY", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "BUSY", "NOREPLICAS", "ERR max number of clients"} {
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
