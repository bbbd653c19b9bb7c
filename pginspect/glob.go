package pginspect

import "strings"

// A pattern is as in Query: * stands for any number of characters, ? for one,
// and \ before either, or before itself, takes that from it.

// unescaped returns the one name that the pattern matches, and whether there is
// but one.
func unescaped(pattern string) (name string, only bool) {
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '*' || c == '?':
			return "", false
		case c == '\\' && i+1 < len(pattern) && strings.IndexByte(`*?\`, pattern[i+1]) >= 0:
			i++
			b.WriteByte(pattern[i])
		default:
			b.WriteByte(c)
		}
	}
	return b.String(), true
}

// like returns the pattern as one of SQL's LIKE, whose escape is \ too. The
// empty pattern matches everything.
func like(pattern string) string {
	if pattern == "" {
		return "%"
	}
	var b strings.Builder
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case c == '*':
			b.WriteByte('%')
		case c == '?':
			b.WriteByte('_')
		case c == '\\' && i+1 < len(pattern) && strings.IndexByte(`*?\`, pattern[i+1]) >= 0:
			i++
			if pattern[i] == '\\' {
				b.WriteByte('\\')
			}
			b.WriteByte(pattern[i])
		case c == '\\' || c == '%' || c == '_':
			b.WriteByte('\\')
			b.WriteByte(c)
		default:
			b.WriteByte(c)
		}
	}
	return b.String()
}

// Literal returns the pattern that matches name alone.
func Literal(name string) string {
	return strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`).Replace(name)
}

// Match reports whether name matches a pattern of Query's; "" matches all.
func Match(pattern, name string) bool { return pattern == "" || glob(pattern, name) }

// glob goes back to the last * alone, so that no pattern takes long.
func glob(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	star, mark := -1, 0
	i, j := 0, 0
	for j < len(n) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
			continue
		case i < len(p) && p[i] == '?':
			i, j = i+1, j+1
			continue
		case i+1 < len(p) && p[i] == '\\' && strings.ContainsRune(`*?\`, p[i+1]):
			if p[i+1] == n[j] {
				i, j = i+2, j+1
				continue
			}
		case i < len(p) && p[i] == n[j]:
			i, j = i+1, j+1
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		i, j = star+1, mark
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
