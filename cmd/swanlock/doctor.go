package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/swanlake-io/swanlock/pginspect"
)

const doctorHelp = `Usage: swanlock doctor [--json] [--verbose]

Checks whether the server, this role and what is in between are fit for swanlock:
version, standby, pooler, room for locks and sessions, timeouts, how the server
notices dead clients, the audit and the rights to it, clocks. It only looks.

  swanlock doctor

What is not "ok" has a why, and the statement that mends it. A "note" is about
something that not everybody needs.

Flags:
  --json      everything, as JSON
  --verbose   the why of what is ok, too

Exit codes: 0 all is well, notes apart; 1 it is not; 64 the arguments are wrong; 69
the server cannot be reached; 78 no server is configured.
`

func cmdDoctor(ctx context.Context, s streams, args []string) error {
	flags := newFlags("doctor")
	asJSON := flags.Bool("json", false, "")
	verbose := flags.Bool("verbose", false, "")
	if _, err := parse(flags, args, 0, 0); err != nil {
		return err
	}
	return onServer(ctx, "doctor", func(ctx context.Context, on *sql.DB) error {
		report, err := pginspect.Check(ctx, on)
		if err != nil {
			return err
		}
		var text string
		if *asJSON {
			out, err := json.Marshal(report)
			if err != nil {
				return err
			}
			text = string(out) + "\n"
		} else {
			width, _, ok := screenOf(s.out)
			if !ok {
				width = 100
			}
			text = reportText(report, width, *verbose, coloursFor(s.out))
		}
		if err := print(s.out, text); err != nil {
			return err
		}
		if !report.Well {
			return &failure{code: exitFailed}
		}
		return nil
	})
}

func reportText(r pginspect.Report, width int, verbose bool, c colours) string {
	colour := map[pginspect.Level]string{pginspect.OK: c.green, pginspect.Note: c.dim, pginspect.Warning: c.yellow, pginspect.Failure: c.red}
	wide := 0
	for _, f := range r.Findings {
		wide = max(wide, len(f.Subject))
	}
	const indent = 9 // of what follows the level
	var b strings.Builder
	if r.Server != "" {
		fmt.Fprintf(&b, "%s\n\n", cell(r.Server))
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%s%-7s%s  ", colour[f.Level], f.Level, c.off)
		b.WriteString(folded(fmt.Sprintf("%-*s  %s", wide, f.Subject, cell(f.Is)), width, indent, indent+wide+2))
		if f.Level == pginspect.OK && !verbose {
			continue
		}
		b.WriteString(strings.Repeat(" ", indent) + folded("why: "+f.Why, width, indent, indent+5))
		if f.Fix != "" { // in one piece, to be copied
			b.WriteString(strings.Repeat(" ", indent) + "fix: " + c.bold + cell(f.Fix) + c.off + "\n")
		}
	}
	switch {
	case r.Well:
		b.WriteString("\nall is well\n")
	default:
		b.WriteString("\nnot all is well\n")
	}
	return b.String()
}

// folded breaks text into lines of a width, of which the first begins at the
// place at, and the others at indent.
func folded(text string, width, at, indent int) string {
	var b strings.Builder
	width = max(width, indent+20)
	column := at
	for i, word := range strings.SplitAfter(text, " ") {
		if i > 0 && column+textWidth(strings.TrimRight(word, " ")) > width {
			line := strings.TrimRight(b.String(), " ")
			b.Reset()
			b.WriteString(line + "\n" + strings.Repeat(" ", indent))
			column = indent
		}
		b.WriteString(word)
		column += textWidth(word)
	}
	return strings.TrimRight(b.String(), " ") + "\n"
}
