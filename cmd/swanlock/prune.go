package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

func isNoAudit(err error) bool { return errors.Is(err, pginspect.ErrNoAudit) }

func cmdPrune(ctx context.Context, s streams, args []string) error {
	flags := newFlags("audit")
	olderThan := flags.String("older-than", "", "")
	if _, err := parse(flags, args, 0, 0); err != nil {
		return err
	}
	if *olderThan == "" {
		return failf(exitUsage, "audit prune: --older-than is missing, as in --older-than 90d (see swanlock audit --help)")
	}
	age, err := parseAge(*olderThan)
	if err != nil {
		return failf(exitUsage, "audit prune: --older-than %w (see swanlock audit --help)", err)
	}
	return onServer(ctx, "audit prune", func(ctx context.Context, on *sql.DB) error {
		now, err := clockOf(ctx, on)
		if err != nil {
			return err
		}
		before := now.Add(-age)
		bar := newBar(s.err)
		done, err := pginspect.Prune(ctx, on, pginspect.PruneQuery{Before: before, Progress: func(p pginspect.Pruned) { bar.show(p.Looked, p.Total) }})
		bar.end()
		said := print(s.out, fmt.Sprintf("deleted %d rows that ended before %s\n", done.Deleted, before.Local().Format(time.DateTime)))
		if err != nil {
			return configured(err)
		}
		return said
	})
}

// A bar shows how far something is, on a terminal alone.
type bar struct {
	w     io.Writer
	width int // 0: it shows nothing
	shown time.Time
	began time.Time
}

func newBar(w io.Writer) *bar {
	width, _, _ := screenOf(w)
	return &bar{w: w, width: width, began: time.Now()}
}

// barPace is how often a bar is drawn anew.
const barPace = 100 * time.Millisecond

func (b *bar) show(done, total int64) {
	if b.width == 0 || time.Since(b.shown) < barPace && done < total {
		return
	}
	b.shown = time.Now()
	part := 1.0
	if total > 0 {
		part = min(1, float64(done)/float64(total))
	}
	text := fmt.Sprintf(" %3.0f %%  %d of %d rows", 100*part, done, total)
	if spent := time.Since(b.began); part > 0.01 && part < 1 && spent > time.Second {
		text += ", " + brief(time.Duration(float64(spent)*(1-part)/part)) + " left"
	}
	size := max(0, min(40, b.width-len(text)-3))
	full := int(part * float64(size))
	fmt.Fprint(b.w, "\r"+cut("["+strings.Repeat("#", full)+strings.Repeat(".", size-full)+"]"+text, b.width-1)+"\x1b[K")
}

func (b *bar) end() {
	if b.width > 0 {
		fmt.Fprint(b.w, "\r\x1b[K")
	}
}
