package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"text/tabwriter"
)

// A tally counts what was done, and what became of it.
type tally struct {
	mu      sync.Mutex
	counts  map[string]*[nOutcomes]int
	last    map[string]error // that failed
	audited int64            // rows
}

func (t *tally) note(name string, err error) (outcome int) {
	outcome = outcomeOf(err)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.counts == nil {
		t.counts, t.last = make(map[string]*[nOutcomes]int), make(map[string]error)
	}
	if t.counts[name] == nil {
		t.counts[name] = new([nOutcomes]int)
	}
	t.counts[name][outcome]++
	if outcome == failed {
		t.last[name] = errors.New(err.Error()) // an error of a driver may keep its connection alive
	}
	return outcome
}

// What is done to the load.
const (
	reopening   = "locker opened anew"
	termination = "backend terminated"
)

// idle says which kinds did not work: a load that fails costs nothing.
func (t *tally) idle() (findings []string) {
	for _, k := range kinds {
		var n [nOutcomes]int
		if t.counts[k.name] != nil {
			n = *t.counts[k.name]
		}
		well, badly := n[done]+n[cut], n[refused]+n[failed]
		if well == 0 || badly > 20+well/10 {
			findings = append(findings, fmt.Sprintf("%s: %d went well, %d were refused, %d failed, the last with: %v", k.name, well, n[refused], n[failed], t.last[k.name]))
		}
	}
	return findings
}

// A report is what a soak has to say.
type report struct {
	*tally
	samples           []sample
	warm, end, stacks bytes.Buffer // profiles: the heap after the warm-up and at the end, the goroutines
}

func (r *report) judge() ([]string, error) {
	findings, err := judge(r.samples)
	if err == nil {
		findings = append(findings, r.idle()...)
	}
	return findings, err
}

func (r *report) write(w io.Writer) {
	fmt.Fprintln(w)
	tabulate(w, r.samples)
	fmt.Fprintln(w)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(t, "operation\t%s\t\n", strings.Join(outcomes[:], "\t"))
	var names []string
	for _, k := range kinds {
		names = append(names, k.name)
	}
	names = append(names, reopening, termination)
	for _, name := range names {
		if n := r.counts[name]; n != nil {
			fmt.Fprintf(t, "%s\t%d\t%d\t%d\t%d\t%d\t\n", name, n[done], n[cut], n[refused], n[lost], n[failed])
		}
	}
	t.Flush()
	fmt.Fprintf(w, "%d rows of the audit\n", r.audited)
	for _, name := range names {
		if err := r.last[name]; err != nil {
			fmt.Fprintf(w, "%s, the last that failed: %v\n", name, err)
		}
	}
}

// keepProfiles writes what tells where the memory and the goroutines are.
func (r *report) keepProfiles() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "swanlock-soak-"); err != nil {
		return "", err
	}
	for name, b := range map[string]*bytes.Buffer{"warm.prof": &r.warm, "end.prof": &r.end, "goroutines.txt": &r.stacks} {
		err = errors.Join(err, os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644))
	}
	return dir, err
}
