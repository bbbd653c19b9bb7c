package main

import (
	"strings"
	"testing"
)

func TestQuote(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"nightly", `"nightly"`},
		{"", `""`},
		{"été ☃", `"été ☃"`},
		{"\x1b[31mred", `"\x1b[31mred"`},
		{"a\nb\r", `"a\nb\r"`},
		{"\u202eevil\u2066", `"\u202eevil\u2066"`},
		{"\xff", `"\xff"`},
		{strings.Repeat("x", 1<<20), `"` + strings.Repeat("x", 80) + `"... (1048576 bytes)`},
		{strings.Repeat("☃", 100), `"` + strings.Repeat("☃", 26) + `"... (300 bytes)`},
	} {
		if got := quote(tt.in); got != tt.want {
			t.Errorf("quote(%.40q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}

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
