package main

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/swanlake-io/swanlock/internal/quoted"
)

// quote shows a name that may hold anything.
func quote(s string) string { return quoted.Text(s) }

// checkTexts refuses what no target, pattern or name of PostgreSQL's can be.
func checkTexts(command string, texts ...string) error {
	for _, s := range texts {
		if !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
			return failf(exitUsage, "%s: %s is not valid UTF-8, or has a NUL byte (see swanlock %[1]s --help)", command, quote(s))
		}
	}
	return nil
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
