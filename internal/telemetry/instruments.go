// Package telemetry is what the metrics of all systems have in common: names,
// units, buckets, attributes, and what is counted when. metrics/otel and
// metrics/prometheus are thin layers over it, so that they cannot differ.
package telemetry

import (
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/pglock"
)

// A Kind is what an instrument is.
type Kind uint8

const (
	Histogram Kind = iota
	Counter        // it only rises
	Gauge          // it rises and falls
)

// An Instrument is a metric. Its name and unit are by OpenTelemetry's rules.
type Instrument struct {
	Name, Unit, Description string
	Kind                    Kind
	Buckets                 []float64 // of a histogram
	Keys                    []string  // the attributes that it may have
}

// The attributes. A target, an owner, a key or a fence never is one: each value
// makes a series that nobody ever deletes.
const (
	KeyBackend   = "swanlock.backend"      // as WithBackend says
	KeyOperation = "swanlock.operation"    // try, acquire
	KeyOutcome   = "swanlock.outcome"      // a swanlock.Outcome
	KeyMode      = "swanlock.mode"         // exclusive, shared
	KeyEnd       = "swanlock.end"          // released, expired, lost
	KeyReason    = "swanlock.reason"       // expired, session, other
	KeyGroup     = "swanlock.target_group" // only with WithTargetGroup
	KeyError     = "error.type"            // only with the outcome error
	KeyPool      = "swanlock.pool"
)

// The buckets end in seconds: of calls that may wait, of calls that do not, and of
// locks.
var (
	waits  = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300}
	trips  = waits[:13]
	oneDay = []float64{.001, .01, .1, 1, 5, 15, 60, 300, 900, 3600, 21600, 86400}
)

// The instruments of an observer.
var (
	AcquireDuration = &Instrument{"swanlock.acquire.duration", "s", "Duration of the calls that try or wait to acquire a lock.", Histogram, waits,
		[]string{KeyBackend, KeyOperation, KeyOutcome, KeyMode, KeyError}}
	HoldDuration = &Instrument{"swanlock.hold.duration", "s", "How long the locks that have ended were held.", Histogram, oneDay,
		[]string{KeyBackend, KeyMode, KeyEnd}}
	RefreshDuration = &Instrument{"swanlock.refresh.duration", "s", "Duration of the calls that refresh a lock.", Histogram, trips,
		[]string{KeyBackend, KeyOutcome, KeyError}}
	ReleaseDuration = &Instrument{"swanlock.release.duration", "s", "Duration of the calls that release a lock.", Histogram, trips,
		[]string{KeyBackend, KeyOutcome, KeyError}}
	LockActive = &Instrument{"swanlock.lock.active", "{lock}", "Locks that are held now.", Gauge, nil,
		[]string{KeyBackend, KeyMode}}
	AcquireActive = &Instrument{"swanlock.acquire.active", "{acquire}", "Calls that wait for a lock now.", Gauge, nil,
		[]string{KeyBackend}}
	LockLosses = &Instrument{"swanlock.lock.losses", "{lock}", "Locks that ended without a release.", Counter, nil,
		[]string{KeyBackend, KeyReason}}
)

// Instruments are all of an observer's.
var Instruments = []*Instrument{AcquireDuration, HoldDuration, RefreshDuration, ReleaseDuration, LockActive, AcquireActive, LockLosses}

// A PoolInstrument is a number of pglock.PoolStats.
type PoolInstrument struct {
	Instrument
	Value func(s pglock.PoolStats) float64
}

func pool(name, unit, description string, kind Kind, value func(s pglock.PoolStats) float64) PoolInstrument {
	return PoolInstrument{Instrument{"swanlock.pool." + name, unit, description, kind, nil, []string{KeyPool}}, value}
}

// PoolInstruments are those of a pglock.Pool.
var PoolInstruments = []PoolInstrument{
	pool("session.count", "{session}", "Connections that the pool has.", Gauge, func(s pglock.PoolStats) float64 { return float64(s.Sessions) }),
	pool("session.limit", "{session}", "Connections that the pool may have.", Gauge, func(s pglock.PoolStats) float64 { return float64(s.MaxSessions) }),
	pool("session.waiting", "{session}", "Connections on which a caller waits in the server.", Gauge, func(s pglock.PoolStats) float64 { return float64(s.WaitingSessions) }),
	pool("lock.count", "{lock}", "Locks that are held.", Gauge, func(s pglock.PoolStats) float64 { return float64(s.Locks) }),
	pool("lock.usage", "{lock}", "Locks held or asked for, and places in line.", Gauge, func(s pglock.PoolStats) float64 { return float64(s.Used) }),
	pool("lock.limit", "{lock}", "What the usage may be.", Gauge, func(s pglock.PoolStats) float64 { return float64(s.Limit) }),
	pool("lock.age", "s", "Age of the oldest lock that is held; 0 if none is.", Gauge, func(s pglock.PoolStats) float64 {
		if s.Oldest.IsZero() {
			return 0
		}
		return time.Since(s.Oldest).Seconds()
	}),
	pool("waiter.count", "{waiter}", "Callers that wait in line.", Gauge, func(s pglock.PoolStats) float64 { return float64(s.Waiters) }),
	pool("round_trips", "{round_trip}", "Statements sent.", Counter, func(s pglock.PoolStats) float64 { return float64(s.RoundTrips) }),
	pool("batches", "{batch}", "Statements that served several callers at once.", Counter, func(s pglock.PoolStats) float64 { return float64(s.Batches) }),
	pool("batch.operations", "{operation}", "Acquires and releases in batches.", Counter, func(s pglock.PoolStats) float64 { return float64(s.Batched) }),
	pool("heartbeats", "{heartbeat}", "Statements that proved all locks of a session.", Counter, func(s pglock.PoolStats) float64 { return float64(s.Heartbeats) }),
	pool("heartbeat.time", "s", "How long the heartbeats took, in all.", Counter, func(s pglock.PoolStats) float64 { return s.HeartbeatTime.Seconds() }),
}

// AuditAge is the age of the audit's oldest row.
var AuditAge = &Instrument{"swanlock.audit.row.age", "s", "Age of the oldest row of the audit.", Gauge, nil, nil}

// PrometheusName returns the name that Prometheus has for the instrument, which is
// what OpenTelemetry's exporter makes of its own.
func (i *Instrument) PrometheusName() string {
	name := Label(i.Name)
	if i.Unit == "s" {
		name += "_seconds"
	}
	if i.Kind == Counter {
		name += "_total"
	}
	return name
}

// Label returns the name of Prometheus's label for an attribute.
func Label(key string) string { return strings.ReplaceAll(key, ".", "_") }
