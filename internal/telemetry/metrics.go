package telemetry

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"runtime/debug"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// Labels are the values of the attributes; empty ones are left out. Each
// instrument takes those that are among its Keys.
type Labels struct{ Backend, Operation, Outcome, Mode, End, Reason, Error, Group string }

// Value returns the value of an attribute.
func (l Labels) Value(key string) string {
	switch key {
	case KeyBackend:
		return l.Backend
	case KeyOperation:
		return l.Operation
	case KeyOutcome:
		return l.Outcome
	case KeyMode:
		return l.Mode
	case KeyEnd:
		return l.End
	case KeyReason:
		return l.Reason
	case KeyError:
		return l.Error
	case KeyGroup:
		return l.Group
	}
	return ""
}

// A Sink is where a system keeps its metrics.
type Sink interface {
	Add(ctx context.Context, i *Instrument, l Labels, n int64)
	Record(ctx context.Context, i *Instrument, l Labels, seconds float64)
}

// Config is what the options of an observer set.
type Config struct {
	Backend string
	Group   func(target string) string // nil: no groups
}

// Named fails if name cannot be the value of a label.
func Named(name string) error {
	if !utf8.ValidString(name) {
		return fmt.Errorf("the name %q is not UTF-8, and so is no value of a label", name)
	}
	return nil
}

// DefaultBackend is the backend of pglock.
const DefaultBackend = "postgresql"

const (
	// maxGroups bounds how many groups of targets there are.
	maxGroups = 50
	// OtherGroup is the group of the targets that would be in one more.
	OtherGroup = "_other"
)

// Metrics is a swanlock.Observer that counts.
type Metrics struct {
	config Config
	sink   Sink

	mu     sync.RWMutex
	groups map[string]bool
}

// NewMetrics returns an observer that counts in sink. Series that rise from 0 are
// made at once: Prometheus does not see the first step of one that begins with 1.
func NewMetrics(c Config, sink Sink) *Metrics {
	m := &Metrics{config: c, sink: sink, groups: make(map[string]bool)}
	if c.Group == nil {
		m.begin("")
	}
	return m
}

func (m *Metrics) begin(group string) {
	ctx, l := context.Background(), Labels{Backend: m.config.Backend, Group: group}
	m.sink.Add(ctx, AcquireActive, l, 0)
	for _, mode := range []string{"exclusive", "shared"} {
		l.Mode = mode
		m.sink.Add(ctx, LockActive, l, 0)
	}
	l.Mode = ""
	for _, reason := range []string{"expired", "session", "other"} {
		l.Reason = reason
		m.sink.Add(ctx, LockLosses, l, 0)
	}
}

// NeverBlocks is a promise to swanlock.Observe.
func (m *Metrics) NeverBlocks() {}

// group returns the target's group, and makes its series at first sight.
func (m *Metrics) group(target string) string {
	if m.config.Group == nil {
		return ""
	}
	// A target that was refused because it is no text is counted as well, and
	// systems take no label that is none.
	group := strings.ToValidUTF8(m.named(target), "\ufffd")
	m.mu.RLock()
	known := m.groups[group]
	m.mu.RUnlock()
	if known {
		return group
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.groups[group] && len(m.groups) >= maxGroups {
		group = OtherGroup
	}
	if !m.groups[group] {
		m.groups[group] = true
		m.begin(group)
	}
	return group
}

// named calls the function of the user's, and logs what it panics with: what is
// counted at the beginning must be taken back at the end.
func (m *Metrics) named(target string) (group string) {
	defer func() {
		if p := recover(); p != nil {
			slog.Default().Error("swanlock: the function that groups targets panicked", "target", target, "panic", p, "stack", string(debug.Stack()))
			group = OtherGroup
		}
	}()
	return m.config.Group(target)
}

// A groupOf is the key of a context's group, that of the call which m counts.
type groupOf struct{ m *Metrics }

// Begin counts a caller that waits. End counts for the same group, also if that of
// the target is another by then.
func (m *Metrics) Begin(ctx context.Context, op swanlock.Op, target string) context.Context {
	group := m.group(target)
	if op == swanlock.OpAcquire {
		m.sink.Add(ctx, AcquireActive, Labels{Backend: m.config.Backend, Group: group}, 1)
	}
	if m.config.Group == nil {
		return ctx
	}
	return context.WithValue(ctx, groupOf{m}, group)
}

// End counts first, and records then, where a function of the user's may panic.
func (m *Metrics) End(ctx context.Context, e swanlock.Event) {
	group, _ := ctx.Value(groupOf{m}).(string)
	l := Labels{Backend: m.config.Backend, Group: group, Mode: "exclusive", Outcome: string(e.Outcome)}
	if e.Shared {
		l.Mode = "shared"
	}
	if e.Outcome == swanlock.OutcomeError {
		l.Error = ErrorType(e.Err)
	}
	if e.Op == swanlock.OpAcquire {
		m.sink.Add(ctx, AcquireActive, l, -1)
	}
	if e.Outcome == swanlock.OutcomeAcquired {
		m.sink.Add(ctx, LockActive, l, 1)
	}
	if e.Ended {
		m.sink.Add(ctx, LockActive, l, -1)
	}
	if e.Op == swanlock.OpLoss {
		l.Reason = reason(e)
		m.sink.Add(ctx, LockLosses, l, 1)
	}
	if e.Ended {
		l.End = "released"
		if e.Op == swanlock.OpLoss {
			l.End = string(e.Outcome)
		}
		m.sink.Record(ctx, HoldDuration, l, e.Held.Seconds())
	}
	switch e.Op {
	case swanlock.OpTryAcquire, swanlock.OpAcquire:
		l.Operation = e.Op.String()
		m.sink.Record(ctx, AcquireDuration, l, e.Took.Seconds())
	case swanlock.OpRefresh:
		m.sink.Record(ctx, RefreshDuration, l, e.Took.Seconds())
	case swanlock.OpRelease:
		m.sink.Record(ctx, ReleaseDuration, l, e.Took.Seconds())
	}
}

// reason returns why a lock was lost: its TTL ran out, its session or connection
// ended, or anything else.
func reason(e swanlock.Event) string {
	switch {
	case e.Outcome == swanlock.OutcomeExpired:
		return "expired"
	case cutOff(e.Err):
		return "session"
	}
	return "other"
}

func cutOff(err error) bool {
	var network net.Error
	state := sqlstate.Of(err)
	return errors.As(err, &network) || errors.Is(err, sql.ErrConnDone) || errors.Is(err, driver.ErrBadConn) ||
		errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || strings.HasPrefix(state, "08") || strings.HasPrefix(state, "57P")
}

// ErrorType returns what kind of error err is: PostgreSQL's SQLSTATE, or a word.
// There are few, whatever is in the errors.
func ErrorType(err error) string {
	switch state := sqlstate.Of(err); {
	case len(state) == 5:
		return state
	case errors.Is(err, errors.ErrUnsupported):
		return "unsupported"
	case errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case cutOff(err):
		return "connection"
	}
	return "_OTHER" // as OpenTelemetry's conventions have it
}

// AgeOf returns how long ago the time was that oldest returns, in seconds and by this
// host's clock; 0 if there is no row. ok is false if oldest fails.
func AgeOf(ctx context.Context, oldest func(context.Context) (time.Time, error)) (seconds float64, ok bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	at, err := oldest(ctx)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return 0, true
	case err != nil:
		return 0, false
	}
	return max(0, time.Since(at).Seconds()), true // The clock of the server may be ahead.
}
