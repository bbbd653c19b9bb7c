package sqlnames

import "strings"

// scan splits query into tokens; comments are left out. A parenthesis has the depth of
// what it stands in.
func scan(query string) (tokens []token) {
	depth := 0
	for i := 0; i < len(query); {
		rest := query[i:]
		n := 1
		switch ch := rest[0]; {
		case strings.ContainsRune(" \t\r\n", rune(ch)):
			i++
			continue
		case strings.HasPrefix(rest, "--"):
			if n = strings.IndexByte(rest, '\n'); n < 0 {
				n = len(rest)
			}
			i += n
			continue
		case strings.HasPrefix(rest, "/*"):
			if n = strings.Index(rest, "*/") + 2; n < 2 {
				n = len(rest)
			}
			i += n
			continue
		case ch == '\'' || ch == '"':
			n = literal(rest, ch)
			k := text
			if ch == '"' {
				k = quoted
			}
			tokens = append(tokens, token{k, rest[:n], depth})
		case letter(ch):
			for n < len(rest) && (letter(rest[n]) || digit(rest[n]) || rest[n] == '$') {
				n++
			}
			tokens = append(tokens, token{name, strings.ToLower(rest[:n]), depth})
		case digit(ch):
			for n < len(rest) && (digit(rest[n]) || rest[n] == '.') {
				n++
			}
			tokens = append(tokens, token{number, rest[:n], depth})
		case ch == '$', ch == '@' && len(rest) > 1 && letter(rest[1]):
			for n < len(rest) && (letter(rest[n]) || digit(rest[n])) {
				n++
			}
			tokens = append(tokens, token{parameter, rest[:n], depth})
		case strings.HasPrefix(rest, "::"):
			n = 2
			tokens = append(tokens, token{mark, "::", depth})
		case strings.ContainsRune("+-*/<>=~!@#%^&|`?", rune(ch)):
			for n < len(rest) && strings.ContainsRune("+-*/<>=~!@#%^&|`?", rune(rest[n])) && !strings.HasPrefix(rest[n:], "--") {
				n++
			}
			tokens = append(tokens, token{operator, rest[:n], depth})
		default:
			if ch == ')' {
				depth--
			}
			tokens = append(tokens, token{mark, rest[:1], depth})
			if ch == '(' {
				depth++
			}
		}
		i += n
	}
	return tokens
}

// literal is the length of what begins with a quote; a doubled one does not end it.
func literal(s string, quote byte) int {
	for i := 1; i < len(s); i++ {
		if s[i] == quote {
			if i+1 < len(s) && s[i+1] == quote {
				i++
				continue
			}
			return i + 1
		}
	}
	return len(s)
}

func letter(ch byte) bool { return ch == '_' || ch|0x20 >= 'a' && ch|0x20 <= 'z' || ch >= 0x80 }

func digit(ch byte) bool { return ch >= '0' && ch <= '9' }
