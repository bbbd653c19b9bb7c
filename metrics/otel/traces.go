package otellock

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/telemetry"
)

// Traces returns an observer that makes a span of each call: "swanlock try",
// "swanlock acquire", "swanlock refresh" and "swanlock release". Spans have the
// target, the outcome and the fence; that a lock is held elsewhere is no error. A
// loss is an event of the span in which the lock was acquired, if that has not
// ended, and otherwise a span "swanlock loss" of no length with a link to it.
func Traces(opts ...Option) swanlock.Observer {
	return tracer{configOf(opts).tracers.Tracer(Scope)}
}

type tracer struct{ trace.Tracer }

// A called is the span of a call, and the one around it.
type called struct {
	op            swanlock.Op
	span, outside trace.Span
}

type calledKey struct{}

func (t tracer) Begin(ctx context.Context, op swanlock.Op, target string) context.Context {
	outside := trace.SpanFromContext(ctx)
	ctx, span := t.Start(ctx, "swanlock "+op.String(), trace.WithAttributes(targetOf(target)))
	return context.WithValue(ctx, calledKey{}, called{op, span, outside})
}

func (t tracer) End(ctx context.Context, e swanlock.Event) {
	c, _ := ctx.Value(calledKey{}).(called)
	switch {
	case e.Op == swanlock.OpLoss:
		t.loss(c, e)
		return
	case c.op != e.Op: // It was released without the observed lock: there was no call.
		return
	}
	c.span.SetAttributes(attributes(e)...)
	if e.Outcome == swanlock.OutcomeError || e.Outcome == swanlock.OutcomeLost {
		c.span.SetStatus(codes.Error, text(e.Err.Error()))
		c.span.SetAttributes(attribute.String(telemetry.KeyError, errorType(e)))
	}
	c.span.End()
}

func (t tracer) loss(c called, e swanlock.Event) {
	about := append(attributes(e), attribute.String("exception.message", text(e.Err.Error())))
	if c.outside != nil && c.outside.IsRecording() {
		c.outside.AddEvent("swanlock loss", trace.WithAttributes(append(about, targetOf(e.Target))...))
		return
	}
	opts := []trace.SpanStartOption{trace.WithNewRoot(), trace.WithAttributes(append(about, targetOf(e.Target))...)}
	if c.span != nil {
		opts = append(opts, trace.WithLinks(trace.Link{SpanContext: c.span.SpanContext()}))
	}
	_, span := t.Start(context.Background(), "swanlock loss", opts...)
	span.SetStatus(codes.Error, text(e.Err.Error()))
	span.End()
}

func targetOf(target string) attribute.KeyValue {
	return attribute.String("swanlock.target", text(target))
}

// text makes text of a target or a server's message that is none: exporters drop
// all that they send together with such a span.
func text(s string) string { return strings.ToValidUTF8(s, "\ufffd") }

func attributes(e swanlock.Event) []attribute.KeyValue {
	set := []attribute.KeyValue{attribute.String(telemetry.KeyOutcome, string(e.Outcome))}
	if e.Info.Fence != 0 {
		set = append(set, attribute.Int64("swanlock.fence", int64(e.Info.Fence)))
	}
	return set
}

func errorType(e swanlock.Event) string {
	if e.Outcome == swanlock.OutcomeLost {
		return "lost"
	}
	return telemetry.ErrorType(e.Err)
}
