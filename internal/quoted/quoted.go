// Package quoted shows text that may hold anything in errors and logs.
package quoted

import (
	"fmt"
	"strconv"
	"unicode/utf8"
)

// most is how many bytes of a text are shown.
const most = 80

// Text returns s quoted, so that it is on one line, with what does not print (line
// ends, terminal escapes, bidirectional marks) escaped. It is cut if it is long.
func Text(s string) string {
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > most-utf8.UTFMax && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s... (%d bytes)", strconv.Quote(s[:cut]), len(s))
}
