package main

import (
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"time"
)

// What the demo counts in a file must be able to be wrong.
func TestTurns(t *testing.T) {
	for _, tt := range []struct {
		name, text   string
		lines, whole int
		fences       []uint64
	}{
		{"whole", "7 a begin\n7 a middle\n7 a end\n9 b begin\n9 b middle\n9 b end\n", 6, 2, []uint64{7, 9}},
		{"torn", "7 a begin\n9 b begin\n7 a middle\n9 b middle\n7 a end\n9 b end\n", 6, 0, nil},
		{"short", "7 a begin\n7 a middle\n", 2, 0, nil},
		{"mixed", "7 a begin\n7 a middle\n8 a end\n9 b begin\n9 b middle\n9 b end\n", 6, 1, []uint64{9}},
		{"unfenced", "- a begin\n- a middle\n- a end\n", 3, 1, nil},
	} {
		path := file(t)
		if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
			t.Fatal(err)
		}
		lines, whole, fences, err := turns(path)
		if err != nil || lines != tt.lines || whole != tt.whole || !slices.Equal(fences, tt.fences) {
			t.Errorf("%s: %d lines, %d whole, fences %d, %v", tt.name, lines, whole, fences, err)
		}
	}
	if rising([]uint64{3, 5, 5}) || rising([]uint64{2, 1}) || !rising([]uint64{1, 2, 9}) || !rising(nil) {
		t.Error("rising is wrong")
	}
}

// One claim that does not hold fails the whole demo.
func TestVerdict(t *testing.T) {
	var out strings.Builder
	d := &demo{out: &out, tick: "+", cross: "-"}
	d.claim(true, "one")
	if err := d.verdict(time.Second); err != nil {
		t.Error(err)
	}
	d.claim(false, "two is %d", 3)
	d.claim(true, "three")
	if f, ok := errors.AsType[*failure](d.verdict(time.Second)); !ok || f.code != 1 || f.Error() != "demo: 1 of 3 claims did not hold (1.0 s)" {
		t.Errorf("verdict: %v", f)
	}
	want := "  +  1  one\n\nAll 1 claims held, in 1.0 s. Next: swanlock run --help\n  -  2  two is 3\n  +  3  three\n"
	if out.String() != want {
		t.Errorf("output %q, want %q", out.String(), want)
	}
}
