// Package promlock has metrics of locks for Prometheus:
//
//	metrics, err := promlock.Metrics(prometheus.DefaultRegisterer)
//	…
//	locker := swanlock.Observe(pool, metrics)
//	_, err = promlock.CollectPool(prometheus.DefaultRegisterer, "main", pool)
//
// The metrics are the same, to their names and labels, as those that the package
// otellock in metrics/otel makes for OpenTelemetry. docs/monitoring.md lists them.
package promlock

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/telemetry"
	"github.com/swanlake-io/swanlock/pglock"
)

// An Option sets how locks are counted. A nil Option does nothing.
type Option func(*config)

type config struct {
	telemetry.Config
	exemplar func(context.Context) prometheus.Labels
}

// WithBackend names the backend of the locker, as the label swanlock_backend; the
// default is "postgresql".
func WithBackend(name string) Option { return func(c *config) { c.Backend = name } }

// WithTargetGroup adds the label swanlock_target_group, which is what group returns
// for the target. It should return one of a handful of values, such as the name of
// a kind of job, since each makes series of its own that stay; beyond 50 values, or
// if group panics, "_other" is used. group must be fast, must not block, and returns
// the same for a target each time. All observers of one registry have it, or none.
func WithTargetGroup(group func(target string) string) Option {
	return func(c *config) { c.Group = group }
}

// WithExemplar adds exemplars to the histograms: what labels returns for the
// context of the call, such as the id of its trace, or nil for none. The handler of
// the metrics needs promhttp.HandlerOpts.EnableOpenMetrics.
func WithExemplar(labels func(ctx context.Context) prometheus.Labels) Option {
	return func(c *config) { c.exemplar = labels }
}

// Metrics returns an observer that counts in the registry reg; nil is the default
// one. It may be called again, for lockers of other backends.
func Metrics(reg prometheus.Registerer, opts ...Option) (swanlock.Observer, error) {
	c := config{Config: telemetry.Config{Backend: telemetry.DefaultBackend}}
	for _, opt := range opts {
		if opt != nil {
			opt(&c)
		}
	}
	if err := telemetry.Named(c.Backend); err != nil {
		return nil, err
	}
	s := &sink{exemplar: c.exemplar, series: make(map[*telemetry.Instrument]vec)}
	for _, i := range telemetry.Instruments {
		keys := i.Keys
		if c.Group != nil {
			keys = append(slices.Clone(keys), telemetry.KeyGroup)
		}
		if err := s.register(registry(reg), i, keys); err != nil {
			return nil, err
		}
	}
	return telemetry.NewMetrics(c.Config, s), nil
}

func registry(reg prometheus.Registerer) prometheus.Registerer {
	if reg == nil {
		return prometheus.DefaultRegisterer
	}
	return reg
}

// A sink has the metrics of a registry.
type sink struct {
	exemplar func(context.Context) prometheus.Labels
	series   map[*telemetry.Instrument]vec
}

// A vec is one metric.
type vec struct {
	keys      []string
	collector prometheus.Collector
}

func (s *sink) register(reg prometheus.Registerer, i *telemetry.Instrument, keys []string) error {
	var labels []string
	for _, key := range keys {
		labels = append(labels, telemetry.Label(key))
	}
	var c prometheus.Collector
	switch name, help := i.PrometheusName(), i.Description; i.Kind {
	case telemetry.Histogram:
		c = prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: i.Buckets,
			NativeHistogramBucketFactor: 1.1, NativeHistogramMaxBucketNumber: 160}, labels)
	case telemetry.Counter:
		c = prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	default:
		c = prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	}
	if err := reg.Register(c); err != nil {
		var there prometheus.AlreadyRegisteredError
		if !errors.As(err, &there) {
			return err
		}
		c = there.ExistingCollector
	}
	s.series[i] = vec{keys, c}
	return nil
}

// values returns the values of the labels of v, in buf if they fit.
func (v vec) values(l telemetry.Labels, buf []string) []string {
	for _, key := range v.keys {
		buf = append(buf, l.Value(key))
	}
	return buf
}

func (s *sink) Add(_ context.Context, i *telemetry.Instrument, l telemetry.Labels, n int64) {
	v := s.series[i]
	values := v.values(l, make([]string, 0, 8))
	switch c := v.collector.(type) {
	case *prometheus.CounterVec:
		c.WithLabelValues(values...).Add(float64(n))
	case *prometheus.GaugeVec:
		c.WithLabelValues(values...).Add(float64(n))
	}
}

func (s *sink) Record(ctx context.Context, i *telemetry.Instrument, l telemetry.Labels, seconds float64) {
	v := s.series[i]
	o := v.collector.(*prometheus.HistogramVec).WithLabelValues(v.values(l, make([]string, 0, 8))...)
	if s.exemplar != nil {
		if exemplar := s.exemplar(ctx); len(exemplar) > 0 {
			o.(prometheus.ExemplarObserver).ObserveWithExemplar(seconds, exemplar)
			return
		}
	}
	o.Observe(seconds)
}

// CollectPool has the registry poll p.Stats, with name as the label swanlock_pool;
// nil is the default registry. To end that, unregister what it returns.
func CollectPool(reg prometheus.Registerer, name string, p *pglock.Pool) (prometheus.Collector, error) {
	c := &poolCollector{pool: p}
	for _, i := range telemetry.PoolInstruments {
		c.descs = append(c.descs, prometheus.NewDesc(i.PrometheusName(), i.Description, nil, prometheus.Labels{telemetry.Label(telemetry.KeyPool): name}))
	}
	return c, registry(reg).Register(c)
}

type poolCollector struct {
	pool  *pglock.Pool
	descs []*prometheus.Desc
}

func (c *poolCollector) Describe(descs chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		descs <- d
	}
}

func (c *poolCollector) Collect(metrics chan<- prometheus.Metric) {
	stats := c.pool.Stats()
	for n, i := range telemetry.PoolInstruments {
		kind := prometheus.GaugeValue
		if i.Kind == telemetry.Counter {
			kind = prometheus.CounterValue
		}
		metrics <- prometheus.MustNewConstMetric(c.descs[n], kind, i.Value(stats))
	}
}

// CollectAuditAge has the registry ask oldest, at each scrape, when the oldest row
// of the audit was written; nil is the default registry. sql.ErrNoRows says that
// there is none, and with any other error the metric is left out. The age is by
// this host's clock. oldest gets a context of five seconds, and is usually
//
//	err = db.QueryRowContext(ctx, "SELECT acquired_at FROM lock_audit WHERE released_at IS NOT NULL ORDER BY id LIMIT 1").Scan(&at)
//
// Rows of locks that are held are left out: they are not deleted, however old.
func CollectAuditAge(reg prometheus.Registerer, oldest func(ctx context.Context) (time.Time, error)) (prometheus.Collector, error) {
	c := auditCollector{oldest, prometheus.NewDesc(telemetry.AuditAge.PrometheusName(), telemetry.AuditAge.Description, nil, nil)}
	return c, registry(reg).Register(c)
}

type auditCollector struct {
	oldest func(context.Context) (time.Time, error)
	desc   *prometheus.Desc
}

func (c auditCollector) Describe(descs chan<- *prometheus.Desc) { descs <- c.desc }

func (c auditCollector) Collect(metrics chan<- prometheus.Metric) {
	if age, ok := telemetry.AgeOf(context.Background(), c.oldest); ok {
		metrics <- prometheus.MustNewConstMetric(c.desc, prometheus.GaugeValue, age)
	}
}
