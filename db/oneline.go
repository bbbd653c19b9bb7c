package db

import (
	"strings"
	"sync"
)

// oneLines has what OneLine has made: map[string]string.
var oneLines sync.Map

// OneLine is query without its comments, and on one line: PostgreSQL writes a
// statement that failed into its log as it is, with a line for each of its lines, and
// each wait in line that ends without the lock has failed. What stands between quotes
// stays as it is. Each query is worked on once.
func OneLine(query string) string {
	if line, ok := oneLines.Load(query); ok {
		return line.(string)
	}
	line := oneLine(query)
	oneLines.Store(query, line)
	return line
}

// oneLine knows what our statements have: no dollar quotes, no block comments, and no
// backslash that escapes a quote.
func oneLine(query string) string {
	var b strings.Builder
	space := false
	for i := 0; i < len(query); i++ {
		switch c := query[i]; {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			space = true
			continue
		case strings.HasPrefix(query[i:], "--"):
			for i+1 < len(query) && query[i+1] != '\n' {
				i++
			}
			space = true
			continue
		}
		if space && b.Len() > 0 {
			b.WriteByte(' ')
		}
		space = false
		c := query[i]
		b.WriteByte(c)
		if c == '\'' || c == '"' {
			for i+1 < len(query) {
				i++
				b.WriteByte(query[i])
				if query[i] == c { // A doubled quote begins the next literal at once.
					break
				}
			}
		}
	}
	return b.String()
}
