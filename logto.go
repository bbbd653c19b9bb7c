package swanlock

import (
	"context"
	"log/slog"
)

// LogTo returns an observer that logs: the loss of a lock as a warning, what
// failed as an error, and all else, such as grants and releases, at the level of
// debugging. Each record has the target, and of a lock the owner, the fence, if
// it has one, and after its end for how long it was held. A nil logger discards
// all.
//
//	locker = swanlock.Observe(locker, swanlock.LogTo(slog.Default()))
func LogTo(l *slog.Logger) Observer {
	if l == nil {
		l = slog.New(slog.DiscardHandler)
	}
	return logger{l}
}

type logger struct{ to *slog.Logger }

func (logger) Begin(ctx context.Context, _ Op, _ string) context.Context { return ctx }

func (l logger) End(ctx context.Context, e Event) {
	level := slog.LevelDebug
	switch {
	case e.Op == OpLoss:
		level = slog.LevelWarn
	case e.Outcome == OutcomeError:
		level = slog.LevelError
	}
	if !l.to.Enabled(ctx, level) {
		return
	}
	attrs := append(make([]slog.Attr, 0, 7), slog.String("target", e.Target), slog.String("outcome", string(e.Outcome)))
	if e.Info.Owner != "" {
		attrs = append(attrs, slog.String("owner", e.Info.Owner))
	}
	if e.Info.Fence != 0 {
		attrs = append(attrs, slog.Uint64("fence", e.Info.Fence))
	}
	if e.Op != OpLoss {
		attrs = append(attrs, slog.Duration("took", e.Took))
	}
	if e.Op == OpLoss || e.Op == OpRelease {
		attrs = append(attrs, slog.Duration("held", e.Held))
	}
	if e.Err != nil {
		attrs = append(attrs, slog.Any("err", e.Err))
	}
	message := "swanlock: " + e.Op.String()
	if e.Op == OpLoss {
		message = "swanlock: a lock was lost"
	}
	l.to.LogAttrs(ctx, level, message, attrs...)
}
