package ops

import "testing"

func TestLabel(t *testing.T) {
	for n, want := range map[int]string{0: "many", 1: "few", 3: "many"} { // and nothing looks at 2
		if got := label(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

func TestEnter(t *testing.T) {
	d := &door{open: true}
	if got, err := d.enter("", false); got != 1 || err != nil {
		t.Errorf("got %d, %v, want 1 and no error", got, err)
	}
}

func TestSub(t *testing.T) {
	if got, want := sub(5, 2), 3; got != want {
		t.Errorf("got %d, want %d", got, want)
	}
}

func TestLast(t *testing.T) {
	if got, want := last(), "b"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
