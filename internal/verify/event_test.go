package verify

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestRecorder: what workers write becomes holds, up to where one was killed.
func TestRecorder(t *testing.T) {
	var b bytes.Buffer
	j := &journal{w: &b}
	for _, e := range []event{
		{What: evAcquire, Hold: "a", Call: 1, New: &Hold{Proc: "p", Target: 2, TTL: time.Second}},
		{What: evGranted, Hold: "a", At: 2, Outcome: OK, Fence: 7, Pid: 8},
		{What: evHeld, Hold: "a", Call: 3, At: 4},
		{What: evWrite, Hold: "a", Call: 5, Write: "x", Fence: 7, Claim: true},
		{What: evWritten, Hold: "a", At: 6, Outcome: OK, Met: "y"},
		{What: evEnded, Hold: "a", Call: 7, At: 8, Err: "lost"},
		{What: evEnded, Hold: "a", Call: 9, At: 10, Err: "lost again"},
		{What: evWrite, Hold: "a", Call: 11, Write: "z", Fence: 7},
		{What: evRelease, Hold: "a", Call: 12},
		{What: evStall, Hold: "p", Call: 13, At: 14},
		{What: evAcquire, Hold: "b", Call: 20, New: &Hold{}},
	} {
		if err := j.put(e); err != nil {
			t.Fatal(err)
		}
	}
	whole := b.String()
	early := newRecorder()
	if err := early.read(strings.NewReader(whole[:strings.Index(whole, `{"w":"ended"`)])); err != nil {
		t.Fatal(err)
	}
	if got := early.holding(false); len(got) != 1 || got["p"] != time.Second {
		t.Errorf("before the loss these hold something: %v, want p", got)
	}
	if got := early.holding(true); len(got) != 1 || got["p"] != 0 {
		t.Errorf("on sessions of their own these hold something: %v, want p, but no TTL", got)
	}
	r := newRecorder()
	if err := r.read(strings.NewReader(whole + `{"w":"acqu`)); err != nil {
		t.Fatalf("a torn end: %v", err)
	}
	if len(r.order) != 2 {
		t.Fatalf("got %d holds, want 2", len(r.order))
	}
	if got := r.holding(false); len(got) != 0 {
		t.Errorf("after the loss these hold something: %v, want none", got)
	}
	h := r.order[0]
	if h.ID != "a" || h.Acquire != (Span{1, 2}) || h.Outcome != OK || h.Fence != 7 || h.Pid != 8 || h.Target != 2 || h.TTL != time.Second ||
		!slices.Equal(h.Held, []Span{{3, 4}}) || h.Ended != 8 || h.Release != (Span{12, 0}) || h.Kept() {
		t.Errorf("got %+v", h)
	}
	want := []Write{{Span{5, 6}, "x", true, 7, OK, "y"}, {Span{11, 0}, "z", false, 7, Pending, ""}}
	if !slices.Equal(h.Writes, want) {
		t.Errorf("got the writes %+v, want %+v", h.Writes, want)
	}
	if want := []Stall{{Span{13, 14}, "p"}}; !slices.Equal(r.stalls, want) {
		t.Errorf("got the stalls %v, want %v", r.stalls, want)
	}
	if got := r.order[1].Outcome; got != Pending {
		t.Errorf("an acquire that did not return has the outcome %q, want none", got)
	}
	for name, text := range map[string]string{
		"a torn line within":      `{"w":"acqu` + "\n" + whole,
		"an event without a hold": `{"w":"held","h":"nobody"}` + "\n",
	} {
		if newRecorder().read(strings.NewReader(text)) == nil {
			t.Errorf("%s is taken for a history", name)
		}
	}
	// A pipe takes a line of this length whole or not at all.
	b.Reset()
	if err := j.put(event{What: evGranted, Hold: "a", Err: strings.Repeat("\x01", 5000)}); err != nil || b.Len() > 4096 {
		t.Errorf("a line has %d bytes, %v, want 4096 at most", b.Len(), err)
	}
}

func TestParseFaults(t *testing.T) {
	for list, want := range map[string][]string{
		"all": AllFaults, "none": nil, "kill": {FaultKill}, "cut, stop,cut": {FaultCut, FaultStop},
	} {
		if got, err := ParseFaults(list); err != nil || !slices.Equal(got, want) {
			t.Errorf("ParseFaults(%q) = %q, %v, want %q", list, got, err, want)
		}
	}
}
