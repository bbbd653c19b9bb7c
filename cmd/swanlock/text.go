package main

import (
	"strconv"
	"strings"

	"github.com/swanlake-io/swanlock/internal/quoted"
)

// quote shows a name that may hold anything.
func quote(s string) string { return quoted.Text(s) }

// oneLine makes one line of a message. Also the text of a server can hold line
// ends and terminal escapes.
func oneLine(s string) string {
	const most = 1000
	var b strings.Builder
	for i, r := range strings.ToValidUTF8(s, "\ufffd") {
		switch {
		case i > most:
			return b.String() + "..."
		case r == '\n' || r == '\r' || r == '\t':
			if !strings.HasSuffix(b.String(), " ") {
				b.WriteByte(' ')
			}
		case strconv.IsPrint(r):
			b.WriteRune(r)
		default:
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return strings.TrimSpace(b.String())
}
