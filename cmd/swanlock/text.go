package main

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// quote shows a name that may hold anything: quoted, with what does not print
// (line ends, terminal escapes, bidirectional marks) escaped, and not too long.
func quote(s string) string {
	const most = 80
	if len(s) <= most {
		return strconv.Quote(s)
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(s[cut]) {
		cut--
	}
	return fmt.Sprintf("%s... (%d bytes)", strconv.Quote(s[:cut]), len(s))
}

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
