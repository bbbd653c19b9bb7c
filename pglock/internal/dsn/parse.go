package dsn

import (
	"maps"
	"net/url"
	"slices"
	"strings"
)

// parseConnection adds the settings of a connection string, the value of the
// variable from. Its errors do not quote keys either: a piece of a password
// that lacks its quotes can look like one.
func parseConnection(text, from string, settings map[string]setting) (problem string) {
	parse := parseKeywords
	scheme, rest, _ := strings.Cut(strings.Trim(text, space), "://")
	if scheme == "postgres" || scheme == "postgresql" {
		parse, text = parseURL, rest
	}
	pairs, problem := parse(text)
	if problem != "" {
		return problem
	}
	own, last := make(map[string]string), "the start"
	for _, p := range pairs {
		name := p.key
		if lower := strings.ToLower(name); slices.Contains(runTimeParameters, lower) {
			name = lower // gorm's manual writes TimeZone
		}
		e, isExtra := findExtra(name)
		switch {
		case name == "hostaddr":
			return "hostaddr is not known to pgx: write the address as host"
		case name == "service" || name == "servicefile":
			return "service means different things to lib/pq and pgx: set PGSERVICE, and no connection string"
		case isExtra:
			if problem := e.check(p.value); problem != "" {
				return name + ": " + problem
			}
		case !isKey(name):
			return "the setting after " + last + " has a key that lib/pq and pgx do not share"
		}
		own[name], last = p.value, name // the last one of a key wins
	}
	maps.DeleteFunc(own, func(_, value string) bool { return value == "" })
	if len(own) == 0 {
		return "holds no setting"
	}
	if fallback := own["fallback_application_name"]; own["application_name"] == "" && settings["application_name"].value == "" {
		own["application_name"] = fallback
	}
	for key, value := range own {
		settings[key] = setting{value, from + ": " + key}
	}
	return ""
}

type pair struct{ key, value string }

const space = " \t\n\v\f\r"

// parseKeywords reads key=value settings as libpq's conninfo_parse does.
func parseKeywords(text string) (pairs []pair, problem string) {
	for rest := strings.TrimLeft(text, space); rest != ""; rest = strings.TrimLeft(rest, space) {
		end := strings.IndexAny(rest, "="+space)
		if end < 0 {
			return nil, "is neither a list of key=value settings nor a postgres:// URL"
		}
		key := rest[:end]
		after, ok := strings.CutPrefix(strings.TrimLeft(rest[end:], space), "=")
		if !ok {
			return nil, "has a key without = (a value that holds a space must be in single quotes)"
		}
		trimmed := strings.TrimLeft(after, space)
		bare := !strings.HasPrefix(trimmed, "'")
		var value string
		if value, rest, problem = scanValue(strings.TrimPrefix(trimmed, "'"), bare); problem != "" {
			return nil, problem
		}
		// libpq would take "password= host=db" for a password and no host.
		if bare && trimmed != after && strings.Contains(value, "=") {
			return nil, "has a blank where a value should be (an empty value is written '')"
		}
		pairs = append(pairs, pair{key, value})
	}
	return pairs, ""
}

// scanValue reads up to the closing quote, or to the blank after a bare value. A backslash quotes one character.
func scanValue(text string, bare bool) (value, rest, problem string) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 == len(text):
			return "", "", "ends in a backslash"
		case c == '\\':
			i++
			b.WriteByte(text[i])
		case bare && strings.IndexByte(space, c) >= 0, !bare && c == '\'':
			return b.String(), text[i+1:], ""
		default:
			b.WriteByte(c)
		}
	}
	if !bare {
		return "", "", "has a single quote that is not closed"
	}
	return b.String(), "", ""
}

// parseURL reads what follows postgres:// as libpq does. net/url refuses lists
// of hosts and ports, a socket's folder as the host, and many passwords, and
// its errors quote them.
func parseURL(text string) (pairs []pair, problem string) {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, "holds a blank or a control character (in a URL a blank is written %20)"
	}
	add := func(key, encoded string) {
		value, err := url.PathUnescape(encoded)
		if err != nil { // The error quotes the value.
			problem = "has a % without two hexadecimal digits (in a URL a % is written %25)"
		}
		pairs = append(pairs, pair{key, value})
	}
	if i := strings.IndexAny(text, "@/"); i >= 0 && text[i] == '@' {
		name, password, _ := strings.Cut(text[:i], ":")
		add("user", name)
		add("password", password)
		text = text[i+1:]
	}
	if strings.Contains(text, "@") {
		return nil, "holds an @ too many, or a / before it (in a URL they are written %40 and %2F)"
	}
	place, rest := text, ""
	if i := strings.IndexAny(text, "/?"); i >= 0 {
		place, rest = text[:i], text[i:]
	}
	var hosts, ports []string
	for item := range strings.SplitSeq(place, ",") {
		host, port, _ := strings.Cut(item, ":")
		if ip, ok := strings.CutPrefix(item, "["); ok {
			host, port, ok = strings.Cut(ip, "]")
			if !ok || host == "" || port != "" && port[0] != ':' {
				return nil, "has an IPv6 address that is not written [address] or [address]:port"
			}
			port = strings.TrimPrefix(port, ":")
		}
		hosts, ports = append(hosts, host), append(ports, port)
	}
	add("host", strings.Join(hosts, ","))
	add("port", strings.Join(ports, ","))
	database, query, _ := strings.Cut(strings.TrimPrefix(rest, "/"), "?")
	add("dbname", database)
	for item := range strings.FieldsFuncSeq(query, func(r rune) bool { return r == '&' }) {
		if item == "ssl=true" { // JDBC's spelling, which libpq takes too
			item = "sslmode=require"
		}
		key, value, _ := strings.Cut(item, "=")
		if strings.Count(item, "=") != 1 {
			return nil, "has a parameter that is not key=value (in a URL a further = is written %3D)"
		}
		add(key, value)
	}
	return pairs, problem
}
