package main

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// TestSoak: in a few seconds everything that the load is made of has been done
// on a real server, rests found no lock, and nothing is left behind. Whether the
// figures are flat says only a longer run.
func TestSoak(t *testing.T) {
	dsn := pgserver.Default().URL()
	var r *report
	d, missed := 3*time.Second, []string{"everything"}
	for ; len(missed) > 0; d *= 2 {
		if d > time.Minute { // A busy machine takes longer than an idle one.
			t.Fatalf("never: %q", missed)
		}
		var err error
		r, err = soak(t.Context(), config{dsn: dsn, duration: d, every: 500 * time.Millisecond, progress: io.Discard})
		if err != nil {
			t.Fatal(err)
		}
		missed = r.idle()
		for _, name := range []string{reopening, termination} {
			if r.counts[name] == nil || r.counts[name][done] == 0 {
				missed = append(missed, name)
			}
		}
		if r.counts["cancelled"][cut] == 0 {
			missed = append(missed, "a wait that is cut short")
		}
	}
	if r.audited == 0 {
		t.Error("nothing was audited")
	}
	if len(r.samples) == 0 {
		t.Fatal("there are no samples")
	}
	for _, s := range r.samples {
		for i, v := range s.values {
			if zero := figures[i].slack == nil; zero != (v == 0) {
				t.Errorf("%s, after %v: got %d", figures[i].name, s.at, v)
			}
		}
	}
	for name, b := range map[string]*bytes.Buffer{"warm-up's": &r.warm, "last": &r.end, "goroutines'": &r.stacks} {
		if b.Len() == 0 {
			t.Errorf("the %s profile was not taken", name)
		}
	}

	db, err := sql.Open("pgx", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	const left = `SELECT (SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'swanlock\_soak\_%')
		+ (SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'swanlock\_soak\_%')`
	n := -1
	for range 100 {
		if err := db.QueryRow(left).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Errorf("%d schemas and sessions are left", n)
}

// TestInterrupted: a soak that is ended early reports what it has seen.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	r, err := soak(ctx, config{dsn: pgserver.Default().URL(), duration: time.Hour, every: 100 * time.Millisecond, progress: calls(cancel)})
	if err != nil || len(r.samples) != 1 {
		t.Fatalf("got %+v and the error %v, want one sample", r, err)
	}
}

// calls is a writer that calls it.
type calls func()

func (c calls) Write(b []byte) (int, error) {
	c()
	return len(b), nil
}

// working is the tally of a load that works.
func working() *tally {
	t := &tally{}
	for _, k := range kinds {
		t.note(k.name, nil)
	}
	return t
}

func TestConclude(t *testing.T) {
	tmp := t.TempDir()
	t.Setenv("TMPDIR", tmp)
	flat := series(func(int, *[nFigures]int64) {})
	leak := series(func(i int, v *[nFigures]int64) { v[goroutines] += int64(i) })
	held := series(func(_ int, v *[nFigures]int64) { v[locks] = 1 })
	broken := working()
	for range 50 {
		broken.note("fence", errors.New("oh no"))
	}
	tests := []struct {
		name   string
		report *report
		want   int
		says   string
	}{
		{"flat", &report{tally: working(), samples: flat}, exitFlat, "flat\n"},
		{"a leak", &report{tally: working(), samples: leak}, exitNotFlat, "NOT FLAT: goroutines: 28 in the second quarter, 58 in the last, more than 30"},
		{"no load", &report{tally: &tally{}, samples: flat}, exitNotFlat, "NOT FLAT: try: 0 went well"},
		{"a load that fails", &report{tally: broken, samples: flat}, exitNotFlat, "NOT FLAT: fence: 1 went well, 0 were refused, 50 failed, the last with: oh no"},
		{"too short", &report{tally: working(), samples: flat[:2]}, exitCannotRun, "too few"},
		{"too short, but not for a lock", &report{tally: working(), samples: held[:2]}, exitNotFlat, "NOT FLAT: locks at rest: 1 after 0s, not 0; so in 2 of 2 samples"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out bytes.Buffer
			tt.report.write(&out)
			if got := conclude(tt.report, &out, &out); got != tt.want || !strings.Contains(out.String(), tt.says) {
				t.Errorf("got %d, want %d and %q in:\n%s", got, tt.want, tt.says, &out)
			}
		})
	}
	profiles, err := filepath.Glob(filepath.Join(tmp, "*", "end.prof"))
	if err != nil || len(profiles) != 4 {
		t.Fatalf("got the profiles %q, %v, want four", profiles, err)
	}
}

func TestArguments(t *testing.T) {
	for _, args := range []string{"-nonsense", "here", "-duration 5s", "-duration -1m", "-every -1s", "-dsn host=127.0.0.1 port=1"} {
		t.Run(args, func(t *testing.T) {
			list := strings.SplitN(args, " ", 2)
			if got := run(t.Context(), list, io.Discard, io.Discard); got != exitCannotRun {
				t.Errorf("got %d, want %d", got, exitCannotRun)
			}
		})
	}
}

func TestWithParams(t *testing.T) {
	tests := []struct{ dsn, want string }{
		{"", "application_name='x'"},
		{"host=h dbname=d", "host=h dbname=d application_name='x'"},
		{"postgres://u@h/d?sslmode=disable&application_name=y", "postgres://u@h/d?application_name=x&sslmode=disable"},
		{"postgresql:///d", "postgresql:///d?application_name=x"},
	}
	for _, tt := range tests {
		if got := withParams(tt.dsn, "application_name", "x"); got != tt.want {
			t.Errorf("withParams(%q): got %q, want %q", tt.dsn, got, tt.want)
		}
	}
}
