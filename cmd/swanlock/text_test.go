package main

import (
	"strconv"
	"strings"
	"testing"
)

func TestOneLine(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"plain", "plain"},
		{"two\n\tlines\r\n", "two lines"},
		{"\x1b[2Jgone", `\x1b[2Jgone`},
		{"bidi \u202e", `bidi \u202e`},
		{"bad \xff", "bad \ufffd"},
	} {
		if got := oneLine(tt.in); got != tt.want {
			t.Errorf("oneLine(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
	if got := oneLine(strings.Repeat("long ", 1<<18)); len(got) > 1010 || !strings.HasSuffix(got, "...") {
		t.Errorf("a megabyte makes %d bytes", len(got))
	}
}

// FuzzText: whatever text is shown, it is short, one line, and does nothing to a terminal.
func FuzzText(f *testing.F) {
	for _, seed := range []string{"nightly", "\x1b[2J", "\u202e\u2066", "\u009b", "a\r\n\tb", "\xff\xc3", "\U000e0001", strings.Repeat("☃", 1000)} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, got := range []string{quote(s), oneLine(s), oneLine(quote(s) + ": " + s)} {
			if len(got) > 1100 || strings.ContainsFunc(got, func(r rune) bool { return !strconv.IsPrint(r) }) {
				t.Errorf("%q is shown as %q", s, got)
			}
		}
		if back, err := strconv.Unquote(quote(s)); len(s) <= 80 && (err != nil || back != s) {
			t.Errorf("quote(%q) reads as %q, %v", s, back, err)
		}
	})
}
