package otellock_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric/noop"
	sdk "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/memlock"
	otellock "github.com/swanlake-io/swanlock/metrics/otel"
)

// traced returns a locker in memory whose calls are traced, and the spans.
func traced(opts ...otellock.Option) (*memlock.Locker, swanlock.Locker, *tracetest.SpanRecorder, *sdktrace.TracerProvider) {
	spans := tracetest.NewSpanRecorder()
	p := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	space := memlock.New()
	return space, swanlock.Observe(space, otellock.Traces(append(opts, otellock.WithTracerProvider(p))...)), spans, p
}

func attributesOf(set []attribute.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range set {
		all[string(a.Key)] = a.Value.String()
	}
	return all
}

func TestTraces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, l, spans, p := traced()
		ctx, outside := p.Tracer("test").Start(t.Context(), "request")
		held, err := l.Acquire(ctx, "t", swanlock.WithFence(), swanlock.WithOwner("me"))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = l.TryAcquire(ctx, "t")
		_, _ = l.TryAcquire(ctx, "")
		_ = held.Refresh(ctx)
		_ = held.Release(ctx)
		outside.End()
		ended := spans.Ended()
		want := []struct {
			name, outcome, fence string
			status               codes.Code
		}{
			{"swanlock acquire", "acquired", "1", codes.Unset},
			{"swanlock try", "not_acquired", "", codes.Unset},
			{"swanlock try", "error", "", codes.Error},
			{"swanlock refresh", "ok", "1", codes.Unset},
			{"swanlock release", "ok", "1", codes.Unset},
		}
		if len(ended) != len(want)+1 {
			t.Fatalf("got %d spans, want %d", len(ended), len(want)+1)
		}
		for i, want := range want {
			s := ended[i]
			a := attributesOf(s.Attributes())
			if s.Name() != want.name || a["swanlock.outcome"] != want.outcome || a["swanlock.fence"] != want.fence || s.Status().Code != want.status {
				t.Errorf("got %s %v %v, want %+v", s.Name(), a, s.Status(), want)
			}
			if s.SpanKind().String() != "internal" || s.Parent().SpanID() != outside.SpanContext().SpanID() || (a["swanlock.target"] != "t") != (want.outcome == "error") {
				t.Errorf("%s: got the kind %v, the parent %v, the target %q", s.Name(), s.SpanKind(), s.Parent().SpanID(), a["swanlock.target"])
			}
		}
	})
}

// TestTracedLoss: a loss is an event of the span around the acquire or, when that
// has ended, a span that is linked to the acquire's.
func TestTracedLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space, l, spans, p := traced()
		ctx, outside := p.Tracer("test").Start(t.Context(), "request")
		lose := func() {
			if _, err := l.Acquire(ctx, "t", swanlock.WithFence()); err != nil {
				t.Fatal(err)
			}
			space.Lose("t", errors.New("killed"))
			synctest.Wait()
		}
		lose()
		outside.End()
		all := spans.Ended()
		if len(all) != 2 || len(all[1].Events()) != 1 {
			t.Fatalf("got %d spans, want 2, and one event", len(all))
		}
		e := all[1].Events()[0]
		if a := attributesOf(e.Attributes); e.Name != "swanlock loss" || a["swanlock.target"] != "t" || a["swanlock.outcome"] != "lost" || a["swanlock.fence"] != "1" || !strings.Contains(a["exception.message"], "killed") {
			t.Errorf("got the event %s %v", e.Name, a)
		}

		lose() // The request has ended.
		all = spans.Ended()
		if len(all) != 4 {
			t.Fatalf("got %d spans, want 4", len(all))
		}
		acquire, loss := all[2], all[3]
		if loss.Name() != "swanlock loss" || loss.Parent().IsValid() || len(loss.Links()) != 1 || loss.Links()[0].SpanContext.SpanID() != acquire.SpanContext().SpanID() ||
			loss.Status().Code != codes.Error || loss.EndTime() != loss.StartTime() {
			t.Errorf("got %s with the links %v, from %v to %v", loss.Name(), loss.Links(), loss.StartTime(), loss.EndTime())
		}
		// A lock that ends without a call has no span of that.
		held, err := l.Acquire(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		_ = held.(interface {
			Unwrap() swanlock.DistributedLock
		}).Unwrap().Release(t.Context())
		synctest.Wait()
		if got := len(spans.Ended()); got != 5 {
			t.Errorf("got %d spans, want one more, of the acquire", got)
		}
	})
}

// TestAnotherIsLost: a call that the loss of another lock has cut short has lost none.
func TestAnotherIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		space, l, spans, _ := traced()
		held, err := l.Acquire(t.Context(), "t")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(fmt.Errorf("another: %w", swanlock.ErrLost))
		refused := held.Refresh(ctx)
		space.Lose("t", errors.New("killed"))
		synctest.Wait()
		lost := held.Refresh(t.Context())
		var types []string
		for _, s := range spans.Ended() {
			if s.Name() == "swanlock refresh" {
				types = append(types, attributesOf(s.Attributes())["error.type"])
			}
		}
		if want := []string{"_OTHER", "lost"}; !slices.Equal(types, want) {
			t.Errorf("of %v and %v the types are %q, want %q", refused, lost, types, want)
		}
	})
}

// TestExemplars: a measurement has the trace of its call.
func TestExemplars(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		reader := sdk.NewManualReader()
		metrics, err := otellock.Metrics(otellock.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(reader))))
		if err != nil {
			t.Fatal(err)
		}
		p := sdktrace.NewTracerProvider()
		ctx, outside := p.Tracer("test").Start(t.Context(), "request")
		l := swanlock.Observe(memlock.New(), otellock.Traces(otellock.WithTracerProvider(p)), metrics)
		held, err := l.Acquire(ctx, "t")
		if err == nil {
			err = errors.Join(held.Refresh(ctx), held.Release(ctx))
		}
		if err != nil {
			t.Fatal(err)
		}
		outside.End()
		var data metricdata.ResourceMetrics
		if err := reader.Collect(t.Context(), &data); err != nil {
			t.Fatal(err)
		}
		traceID := outside.SpanContext().TraceID()
		histograms := 0
		for _, m := range data.ScopeMetrics[0].Metrics {
			h, ok := m.Data.(metricdata.Histogram[float64])
			if !ok {
				continue
			}
			histograms++
			if e := h.DataPoints[0].Exemplars; len(e) != 1 || string(e[0].TraceID) != string(traceID[:]) {
				t.Errorf("%s: got the exemplars %v, want one of the trace %v", m.Name, e, traceID)
			}
		}
		if histograms != 4 || data.ScopeMetrics[0].Scope.Name != otellock.Scope {
			t.Errorf("got %d histograms of %q, want 4", histograms, data.ScopeMetrics[0].Scope.Name)
		}
	})
}

// TestFewAllocations: once its series are there, a measurement allocates nothing.
func TestFewAllocations(t *testing.T) {
	for name, p := range map[string]otellock.Option{
		"noop": otellock.WithMeterProvider(noop.NewMeterProvider()),
		"sdk":  otellock.WithMeterProvider(sdk.NewMeterProvider(sdk.WithReader(sdk.NewManualReader()))),
	} {
		metrics, err := otellock.Metrics(p)
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		e := swanlock.Event{Op: swanlock.OpAcquire, Target: "t", Outcome: swanlock.OutcomeAcquired, Took: time.Millisecond}
		if got := testing.AllocsPerRun(100, func() { metrics.End(metrics.Begin(ctx, e.Op, e.Target), e) }); got > 0 {
			t.Errorf("%s: got %v allocations, want none", name, got)
		}
	}
}

// TestTextOfSpans: exporters drop all spans that they send together with one whose
// attribute is not text.
func TestTextOfSpans(t *testing.T) {
	_, l, spans, _ := traced()
	if _, err := l.TryAcquire(t.Context(), "a\xff"); err == nil {
		t.Fatal("TryAcquire: got nil, want an error")
	}
	for _, s := range spans.Ended() {
		for key, value := range attributesOf(s.Attributes()) {
			if !utf8.ValidString(value) {
				t.Errorf("%s: the attribute %s is %q", s.Name(), key, value)
			}
		}
	}
}

// A funcLocker is a locker whose acquires are a function.
type funcLocker func() (swanlock.DistributedLock, error)

func (f funcLocker) TryAcquire(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f()
}

func (f funcLocker) Acquire(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
	return f()
}

// TestTextOfErrors: a server that does not speak UTF-8, as before PostgreSQL knows the
// client's encoding, costs no spans. Exporters drop all that they send with such a text.
func TestTextOfErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		spans := tracetest.NewSpanRecorder()
		traces := otellock.Traces(otellock.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))))
		latin1 := errors.New("das Passwort ist ung\xfcltig")
		l := swanlock.Observe(funcLocker(func() (swanlock.DistributedLock, error) { return nil, latin1 }), traces)
		if _, err := l.TryAcquire(t.Context(), "t"); err != latin1 {
			t.Errorf("got %v, want the error", err)
		}
		space := memlock.New()
		if _, err := swanlock.Observe(space, traces).TryAcquire(t.Context(), "t"); err != nil {
			t.Fatal(err)
		}
		space.Lose("t", latin1)
		synctest.Wait()
		ended := spans.Ended()
		if len(ended) != 3 {
			t.Fatalf("got %d spans, want 3", len(ended))
		}
		for _, s := range ended {
			texts := []string{s.Status().Description}
			for _, a := range s.Attributes() {
				texts = append(texts, a.Value.String())
			}
			for _, text := range texts {
				if !utf8.ValidString(text) {
					t.Errorf("%s has the text %q", s.Name(), text)
				}
			}
		}
	})
}

// TestNeither: a locker that returns neither a lock nor an error has a span all the same.
func TestNeither(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	traces := otellock.Traces(otellock.WithTracerProvider(sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))))
	l := swanlock.Observe(funcLocker(func() (swanlock.DistributedLock, error) { return nil, nil }), traces)
	if held, err := l.TryAcquire(t.Context(), "t"); held != nil || err != nil {
		t.Errorf("got %v, %v, want what the locker returned", held, err)
	}
	ended := spans.Ended()
	if len(ended) != 1 || ended[0].Status().Code != codes.Error || ended[0].Status().Description == "" {
		t.Errorf("got the spans %v, want one of an error", ended)
	}
}
