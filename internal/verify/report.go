package verify

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"
)

// Table writes the report for people.
func (r *Report) Table(w io.Writer) error {
	c := r.Counts
	fmt.Fprintf(w, "%s, %d workers, %v, seed %d\n", cmp.Or(r.History.Backend, "PostgreSQL "+r.Server), r.Workers, r.Took.Round(100*time.Millisecond), r.Seed)
	fmt.Fprintf(w, "%d attempts, %d locks granted (%d shared), %d lost; %d writes, %d of them fenced off\n",
		c.Attempts, c.Granted, c.Shared, c.Lost, c.Writes, c.Fenced)
	fmt.Fprintf(w, "faults: %s\n\n", r.faults())
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "check\tlooked at\thistories\tresult")
	for _, x := range r.Results {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\n", x.Kind, x.Checked, x.Pieces, x.verdict())
	}
	return t.Flush()
}

func (r *Report) faults() string {
	if len(r.Faults) == 0 {
		return "none"
	}
	var parts []string
	for _, f := range r.Faults {
		n := fmt.Sprint(r.Done[f])
		if f == FaultCancel {
			n = "at random"
		}
		parts = append(parts, f+" "+n)
	}
	return strings.Join(parts, ", ")
}

// Idle are the faults that were asked for and never came about.
func (r *Report) Idle() (idle []string) {
	for _, f := range r.Faults {
		if f != FaultCancel && r.Done[f] == 0 {
			idle = append(idle, f)
		}
	}
	return idle
}

func (x Result) verdict() string {
	var parts []string
	switch {
	case len(x.Findings) > 0:
		parts = append(parts, fmt.Sprintf("%d VIOLATIONS", len(x.Findings)))
	case x.Checked == 0 && x.Skipped == "":
		parts = append(parts, "nothing to look at")
	case x.Checked > 0 && x.Unknown == 0:
		parts = append(parts, "ok")
	}
	if x.Unknown > 0 {
		parts = append(parts, fmt.Sprintf("%d histories took too long to judge: unknown", x.Unknown))
	}
	if x.Skipped != "" {
		parts = append(parts, "not checked: "+x.Skipped)
	}
	return strings.Join(parts, "; ")
}

// JSON writes the report for programs, as one object.
func (r *Report) JSON(w io.Writer) error {
	type fault struct {
		Asked bool `json:"asked"`
		Done  int  `json:"done"`
	}
	faults := make(map[string]fault)
	for _, f := range r.Faults {
		faults[f] = fault{true, r.Done[f]}
	}
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	return enc.Encode(struct {
		OK       bool             `json:"ok"`
		Seed     uint64           `json:"seed"`
		Server   string           `json:"server"`
		Workers  int              `json:"workers"`
		Seconds  float64          `json:"seconds"`
		Counts   Counts           `json:"counts"`
		Faults   map[string]fault `json:"faults"`
		Unknown  int              `json:"unknown"`
		Checks   []Result         `json:"checks"`
		Findings []Finding        `json:"findings"`
	}{len(r.Findings()) == 0 && r.Unknown() == 0, r.Seed, r.Server, r.Workers, r.Took.Seconds(), r.Counts, faults, r.Unknown(), r.Results, r.Findings()})
}

// WriteHistory writes, into a new folder, the history as lines of JSON and a
// picture of what is about the first finding.
func (r *Report) WriteHistory(dir string) (err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "history.jsonl"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	put := func(kind string, v any) {
		if err == nil {
			err = enc.Encode(map[string]any{kind: v})
		}
	}
	hist := r.History
	put("run", map[string]any{"seed": r.Seed, "server": r.Server, "targets": hist.Targets, "end": hist.End})
	for _, x := range r.Findings() {
		put("finding", x)
	}
	for _, x := range hist.Faults {
		put("fault", x)
	}
	for _, x := range hist.Holds {
		put("hold", x)
	}
	for _, x := range hist.Audit {
		put("audit", x)
	}
	for _, x := range hist.Seen {
		put("seen", x)
	}
	for _, x := range hist.Procs {
		put("process", x)
	}
	for _, x := range hist.Stalls {
		put("stall", x)
	}
	if err := errors.Join(err, w.Flush()); err != nil {
		return err
	}
	return r.picture(filepath.Join(dir, "history.html"))
}
