package quoted_test

import (
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/internal/quoted"
)

func TestText(t *testing.T) {
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
		{strings.Repeat("\x80", 100), `"` + strings.Repeat(`\x80`, 76) + `"... (100 bytes)`},
	} {
		if got := quoted.Text(tt.in); got != tt.want {
			t.Errorf("Text(%.40q) = %s, want %s", tt.in, got, tt.want)
		}
	}
}
