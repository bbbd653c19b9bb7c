package pginspect_test

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

func TestNilConnection(t *testing.T) {
	ctx := context.Background()
	if _, err := pginspect.Check(ctx, nil); err == nil || !strings.Contains(err.Error(), "the connection is nil") {
		t.Errorf("Check of nil: got %v", err)
	}
	for name, on := range map[string]pginspect.DB{"nil": nil, "*sql.DB": (*sql.DB)(nil), "*sql.Conn": (*sql.Conn)(nil)} {
		for call, f := range map[string]func() error{
			"Look":        func() error { _, _, err := pginspect.Look(ctx, on); return err },
			"Watcher":     func() error { _, _, err := new(pginspect.Watcher).Look(ctx, on); return err },
			"History":     func() error { _, err := pginspect.History(ctx, on, pginspect.Query{}); return err },
			"HeldAt":      func() error { _, err := pginspect.HeldAt(ctx, on, time.Now()); return err },
			"Kill":        func() error { _, err := pginspect.Kill(ctx, on, pginspect.Session{PID: 1}, "me"); return err },
			"Prune":       func() error { _, err := pginspect.Prune(ctx, on, pginspect.PruneQuery{}); return err },
			"LastSuccess": func() error { _, _, err := pginspect.LastSuccess(ctx, on, "target"); return err },
		} {
			if err := f(); err == nil || !strings.Contains(err.Error(), "the connection is nil") {
				t.Errorf("%s of %s: got %v", call, name, err)
			}
		}
	}
}

// TestTextThatIsNone: what PostgreSQL's text cannot hold is refused before anything is
// sent.
func TestTextThatIsNone(t *testing.T) {
	on := (*sql.DB)(nil)
	for _, bad := range []string{"a\x00b", "\xff"} {
		for call, f := range map[string]func() error{
			"target": func() error {
				_, err := pginspect.History(t.Context(), on, pginspect.Query{Target: bad})
				return err
			},
			"owner": func() error {
				_, err := pginspect.History(t.Context(), on, pginspect.Query{Owner: bad})
				return err
			},
			"by": func() error { _, err := pginspect.Kill(t.Context(), on, pginspect.Session{PID: 1}, bad); return err },
		} {
			if err := f(); err == nil || !strings.Contains(err.Error(), "has a NUL byte, or is not valid UTF-8") {
				t.Errorf("%s %q: got %v", call, bad, err)
			}
		}
	}
}
