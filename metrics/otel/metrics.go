// Package otellock has metrics and traces of locks for OpenTelemetry:
//
//	metrics, err := otellock.Metrics()
//	…
//	locker := swanlock.Observe(pool, otellock.Traces(), metrics)
//	stop, err := otellock.CollectPool("main", pool)
//
// Traces come before metrics, so that the exemplars of the metrics have the spans
// of the calls. The metrics are the same, to their names and attributes, as those
// that the package promlock in metrics/prometheus makes for Prometheus's client.
// docs/monitoring.md lists them.
package otellock

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/telemetry"
	"github.com/swanlake-io/swanlock/pglock"
)

// Scope is the name of the instrumentation scope.
const Scope = "github.com/swanlake-io/swanlock"

// An Option sets how locks are counted and traced. A nil Option does nothing.
type Option func(*config)

type config struct {
	telemetry.Config
	meters  metric.MeterProvider
	tracers trace.TracerProvider
}

// WithMeterProvider sets where metrics go; the default is OpenTelemetry's global
// provider.
func WithMeterProvider(p metric.MeterProvider) Option { return func(c *config) { c.meters = p } }

// WithTracerProvider sets where spans go; the default is OpenTelemetry's global
// provider.
func WithTracerProvider(p trace.TracerProvider) Option { return func(c *config) { c.tracers = p } }

// WithBackend names the backend of the locker, as the attribute swanlock.backend;
// the default is "postgresql".
func WithBackend(name string) Option { return func(c *config) { c.Backend = name } }

// WithTargetGroup adds to the metrics the attribute swanlock.target_group, which is
// what group returns for the target. It should return one of a handful of values,
// such as the name of a kind of job, since each makes series of its own that stay;
// beyond 50 values, or if group panics, "_other" is used. group must be fast, must not
// block, and returns the same for a target each time.
func WithTargetGroup(group func(target string) string) Option {
	return func(c *config) { c.Group = group }
}

func configOf(opts []Option) config {
	c := config{Config: telemetry.Config{Backend: telemetry.DefaultBackend}, meters: otel.GetMeterProvider(), tracers: otel.GetTracerProvider()}
	for _, opt := range opts {
		if opt != nil {
			opt(&c)
		}
	}
	return c
}

// Metrics returns an observer that counts.
func Metrics(opts ...Option) (swanlock.Observer, error) {
	c := configOf(opts)
	if err := telemetry.Named(c.Backend); err != nil {
		return nil, err
	}
	s := &sink{instruments: make(map[*telemetry.Instrument]*instrument)}
	meter := c.meters.Meter(Scope)
	for _, i := range telemetry.Instruments {
		made := &instrument{options: make(map[telemetry.Labels]*options)}
		made.keys = i.Keys
		if c.Group != nil {
			made.keys = append(slices.Clone(i.Keys), telemetry.KeyGroup)
		}
		var err error
		switch unit, description := metric.WithUnit(i.Unit), metric.WithDescription(i.Description); i.Kind {
		case telemetry.Histogram:
			made.histogram, err = meter.Float64Histogram(i.Name, unit, description, metric.WithExplicitBucketBoundaries(i.Buckets...))
		case telemetry.Counter:
			made.counter, err = meter.Int64Counter(i.Name, unit, description)
		default:
			made.counter, err = meter.Int64UpDownCounter(i.Name, unit, description)
		}
		if err != nil {
			return nil, err
		}
		s.instruments[i] = made
	}
	return telemetry.NewMetrics(c.Config, s), nil
}

// A sink has the instruments of a meter.
type sink struct {
	instruments map[*telemetry.Instrument]*instrument
}

// An instrument is one metric. It makes the options of each set of attributes
// once, since they cost more than to count does.
type instrument struct {
	keys      []string
	histogram metric.Float64Histogram
	counter   interface {
		Add(ctx context.Context, incr int64, opts ...metric.AddOption)
		Enabled(ctx context.Context) bool
	}

	mu      sync.RWMutex
	options map[telemetry.Labels]*options
}

type options struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func (i *instrument) with(l telemetry.Labels) *options {
	i.mu.RLock()
	o := i.options[l]
	i.mu.RUnlock()
	if o != nil {
		return o
	}
	var attributes []attribute.KeyValue
	for _, key := range i.keys {
		if value := l.Value(key); value != "" {
			attributes = append(attributes, attribute.String(key, value))
		}
	}
	set := metric.WithAttributeSet(attribute.NewSet(attributes...))
	o = &options{[]metric.AddOption{set}, []metric.RecordOption{set}}
	i.mu.Lock()
	i.options[l] = o
	i.mu.Unlock()
	return o
}

func (s *sink) Add(ctx context.Context, i *telemetry.Instrument, l telemetry.Labels, n int64) {
	if made := s.instruments[i]; made.counter.Enabled(ctx) {
		made.counter.Add(ctx, n, made.with(l).add...)
	}
}

func (s *sink) Record(ctx context.Context, i *telemetry.Instrument, l telemetry.Labels, seconds float64) {
	if made := s.instruments[i]; made.histogram.Enabled(ctx) {
		made.histogram.Record(ctx, seconds, made.with(l).record...)
	}
}

// CollectPool has p.Stats polled at each collection, with name as the attribute
// swanlock.pool, until stop is called.
func CollectPool(name string, p *pglock.Pool, opts ...Option) (stop func() error, err error) {
	if err := telemetry.Named(name); err != nil {
		return nil, err
	}
	meter := configOf(opts).meters.Meter(Scope)
	var instruments []metric.Observable
	for _, i := range telemetry.PoolInstruments {
		var o metric.Observable
		if unit, description := metric.WithUnit(i.Unit), metric.WithDescription(i.Description); i.Kind == telemetry.Counter {
			o, err = meter.Float64ObservableCounter(i.Name, unit, description)
		} else {
			o, err = meter.Float64ObservableGauge(i.Name, unit, description)
		}
		if err != nil {
			return nil, err
		}
		instruments = append(instruments, o)
	}
	set := metric.WithAttributeSet(attribute.NewSet(attribute.String(telemetry.KeyPool, name)))
	registration, err := meter.RegisterCallback(func(_ context.Context, to metric.Observer) error {
		stats := p.Stats()
		for n, i := range telemetry.PoolInstruments {
			to.ObserveFloat64(instruments[n].(metric.Float64Observable), i.Value(stats), set)
		}
		return nil
	}, instruments...)
	if err != nil {
		return nil, err
	}
	return registration.Unregister, nil
}

// CollectAuditAge has oldest asked, at each collection, when the oldest row of the
// audit was written, until stop is called. sql.ErrNoRows says that there is none,
// and with any other error the metric is left out. The age is by this host's clock.
// oldest gets a context of five seconds, and is usually
//
//	err = db.QueryRowContext(ctx, "SELECT acquired_at FROM lock_audit WHERE released_at IS NOT NULL ORDER BY id LIMIT 1").Scan(&at)
//
// Rows of locks that are held are left out: they are not deleted, however old.
func CollectAuditAge(oldest func(ctx context.Context) (time.Time, error), opts ...Option) (stop func() error, err error) {
	meter, i := configOf(opts).meters.Meter(Scope), telemetry.AuditAge
	gauge, err := meter.Float64ObservableGauge(i.Name, metric.WithUnit(i.Unit), metric.WithDescription(i.Description))
	if err != nil {
		return nil, err
	}
	registration, err := meter.RegisterCallback(func(ctx context.Context, to metric.Observer) error {
		if age, ok := telemetry.AgeOf(ctx, oldest); ok {
			to.ObserveFloat64(gauge, age)
		}
		return nil
	}, gauge)
	if err != nil {
		return nil, err
	}
	return registration.Unregister, nil
}
