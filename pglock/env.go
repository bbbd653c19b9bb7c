package pglock

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrNoDSN is what [DSNFromEnv] returns when the environment does not say where the server is. libpq would try a local
// socket then; a program that wants locks is better told.
var ErrNoDSN = errors.New("pglock: no PostgreSQL server is configured: set SWANLAKE_LOCK_POSTGRES_CONNECTION " +
	"or PGCONNECTION, or PGHOST, PGPORT, PGUSER, PGDATABASE and PGPASSWORD")

var (
	// connectionVars hold a whole connection string each. The first one that is set is used.
	connectionVars = []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION", "PGCONNECTION"}
	// placeVars are those of which one at least must be set when no connection variable is.
	placeVars = []string{"PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE"}
	// sslModes are in order of strength.
	sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
)

// dsnKey is a setting that lib/pq and pgx understand alike, and the variable that libpq reads it from. Any other would be
// sent to the server as a run-time parameter by one of them, and refused there.
type dsnKey struct {
	key, env string
	check    func(value string) (problem string)
}

var dsnKeys = []dsnKey{
	{"host", "PGHOST", checkHosts},
	{"port", "PGPORT", checkPorts},
	{"user", "PGUSER", checkText},
	{"dbname", "PGDATABASE", checkText},
	{"password", "PGPASSWORD", checkText},
	{"passfile", "PGPASSFILE", checkText},
	{"sslmode", "PGSSLMODE", oneOf(sslModes...)},
	{"sslnegotiation", "PGSSLNEGOTIATION", oneOf("postgres", "direct")},
	{"sslcert", "PGSSLCERT", checkText},
	{"sslkey", "PGSSLKEY", checkText},
	{"sslrootcert", "PGSSLROOTCERT", checkText},
	{"sslsni", "PGSSLSNI", oneOf("0", "1")},
	{"connect_timeout", "PGCONNECT_TIMEOUT", checkSeconds},
	{"application_name", "PGAPPNAME", checkText},
	{"options", "PGOPTIONS", checkText},
	{"target_session_attrs", "PGTARGETSESSIONATTRS",
		oneOf("any", "read-write", "read-only", "primary", "standby", "prefer-standby")},
}

// DSNFromEnv returns the connection string that the environment describes, for sql.Open with lib/pq (1.12 or later) or
// pgx alike: SWANLAKE_LOCK_POSTGRES_CONNECTION if it is set, else PGCONNECTION, else libpq's own variables (PGHOST,
// PGPORT, PGUSER, PGDATABASE, PGPASSWORD, PGPASSFILE, PGSSLMODE, PGSERVICE and so on). An empty variable or setting
// counts as unset, and as in libpq the PG variables fill in what a connection string leaves out.
//
// A connection string is a list of key=value or a postgres:// URL, as [libpq defines them], with the keys host, port,
// user, dbname, password, passfile, sslmode, sslnegotiation, sslcert, sslkey, sslrootcert, sslsni, connect_timeout,
// application_name, options and target_session_attrs. A run-time parameter goes into options, as -c name=value.
//
// The result is always key=value, and names host, port, user, dbname and sslmode: the two drivers differ in what they
// take for granted and in how they read a URL, and programs on either must end up at the same locks. The defaults are
// libpq's (user is the system's name for who runs the program, dbname is user, sslmode is prefer), but that host is
// localhost: only libpq knows the folder of the socket that it was built for.
//
// The drivers disagree on PGSERVICE next to a connection string, and on PGHOSTADDR next to a host, so those are refused.
// With PGSERVICE the result names the service alone, which the driver looks up: say sslmode there. The drivers also read
// the PG variables themselves, and lib/pq refuses some that are set, though empty, or that it does not support.
//
// A password that is not ASCII must be in Unicode's form NFKC: PostgreSQL compares that form, which libpq makes of what it is
// given and the drivers do not.
//
// With nothing set the error is [ErrNoDSN]. Any other names the variable at fault and what is wrong with it, and never
// quotes its value, which may hold a password. So may the result: it is not for logs.
//
// [libpq defines them]: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING
func DSNFromEnv() (string, error) { return dsnFrom(os.Getenv) }

// setting is a value and what an error about it names.
type setting struct{ value, from string }

func faulty(from, problem string) error { return fmt.Errorf("pglock: %s: %s", from, problem) }

func dsnFrom(getenv func(string) string) (string, error) {
	isSet := func(name string) bool { return getenv(name) != "" }
	settings := make(map[string]setting)
	for _, k := range dsnKeys {
		if isSet(k.env) {
			settings[k.key] = setting{getenv(k.env), k.env}
		}
	}

	winner := "PGSERVICE" // what overrides the other PG variables
	if i := slices.IndexFunc(connectionVars, isSet); i >= 0 {
		winner = connectionVars[i]
		if isSet("PGSERVICE") { // lib/pq lets the service override the connection string
			return "", faulty("PGSERVICE", "cannot be combined with "+winner+": unset one of them")
		}
		if problem := parseConnection(getenv(winner), winner, settings); problem != "" {
			return "", faulty(winner, problem)
		}
	} else if !slices.ContainsFunc(placeVars, isSet) {
		return "", ErrNoDSN
	}
	for _, name := range []string{"PGHOST", "PGPORT"} { // lib/pq appends them to the winner's
		if isSet(winner) && strings.Contains(getenv(name), ",") {
			return "", faulty(name, "a list cannot be combined with "+winner+": unset one of them")
		}
	}
	if isSet("PGHOSTADDR") { // lib/pq connects there whatever the host; pgx does not know it
		if host := settings["host"]; host.value != "" || isSet("PGSERVICE") {
			return "", faulty("PGHOSTADDR", "cannot be combined with "+cmp.Or(host.from, "PGSERVICE")+": unset one of them")
		}
		if _, err := netip.ParseAddr(getenv("PGHOSTADDR")); err != nil {
			return "", faulty("PGHOSTADDR", "must be one IP address (PGHOST takes a list of them)")
		}
		settings["host"] = setting{getenv("PGHOSTADDR"), "PGHOSTADDR"}
	}
	if isSet("PGSERVICE") {
		return "service=" + quoted(getenv("PGSERVICE")), nil
	}

	for _, k := range dsnKeys {
		if s := settings[k.key]; s.value != "" {
			if problem := k.check(s.value); problem != "" {
				return "", faulty(s.from, problem)
			}
		}
	}
	if err := fillIn(settings); err != nil {
		return "", err
	}
	var dsn []string
	for _, k := range dsnKeys {
		if s := settings[k.key]; s.value != "" {
			dsn = append(dsn, k.key+"="+quoted(s.value))
		}
	}
	return strings.Join(dsn, " "), nil
}

// fillIn adds what the result must name, and checks what takes more than one setting to judge.
func fillIn(settings map[string]setting) error {
	fill := func(key, value string) string {
		s := settings[key]
		s.value = cmp.Or(s.value, value)
		settings[key] = s
		return s.value
	}
	hosts, ports := strings.Split(settings["host"].value, ","), strings.Split(settings["port"].value, ",")
	if len(ports) > 1 && len(ports) != len(hosts) {
		return faulty(settings["port"].from, fmt.Sprintf("lists %d ports for %d hosts", len(ports), len(hosts)))
	}
	for i := range hosts {
		hosts[i] = cmp.Or(hosts[i], "localhost")
	}
	for i := range ports {
		ports[i] = cmp.Or(ports[i], "5432")
	}
	settings["host"] = setting{value: strings.Join(hosts, ",")}
	settings["port"] = setting{value: strings.Join(ports, ",")}

	if settings["user"].value == "" {
		who, err := user.Current()
		if err != nil {
			return faulty("PGUSER", "must be set: the system has no name for who runs this program")
		}
		fill("user", who.Username)
	}
	fill("dbname", settings["user"].value)

	usual, least, asked := "prefer", "disable", ""
	if s := settings["sslnegotiation"]; s.value == "direct" {
		usual, least, asked = "require", "require", s.from
	}
	if s := settings["sslrootcert"]; s.value == "system" {
		usual, least, asked = "verify-full", "verify-full", s.from
	}
	if asked != "" && isSocket(hosts[0]) {
		return faulty(asked, "asks for TLS, which a Unix socket does not have")
	}
	if mode := fill("sslmode", usual); slices.Index(sslModes, mode) < slices.Index(sslModes, least) {
		return faulty(settings["sslmode"].from, "must be "+least+" at least, because of "+asked)
	}
	return nil
}

// parseConnection adds the settings of a connection string, the value of the variable from. What it returns does not
// quote keys either: a piece of a password that lacks its quotes can look like one.
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
		switch {
		case p.key == "hostaddr":
			return "hostaddr is not known to pgx: write the address as host"
		case p.key == "service":
			return "service means different things to lib/pq and pgx: set PGSERVICE, and no connection string"
		case !slices.ContainsFunc(dsnKeys, func(k dsnKey) bool { return k.key == p.key }):
			return "the setting after " + last + " has a key that lib/pq and pgx do not share"
		}
		own[p.key], last = p.value, p.key // the last one of a key wins
	}
	maps.DeleteFunc(own, func(_, value string) bool { return value == "" })
	if len(own) == 0 {
		return "holds no setting"
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

// parseURL reads what follows postgres:// as libpq does. To net/url, lists of hosts and ports, a socket's folder as the
// host, and many a password are errors, which quote them.
func parseURL(text string) (pairs []pair, problem string) {
	if strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) {
		return nil, "holds a blank or a control character (in a URL a blank is written %20)"
	}
	add := func(key, encoded string) {
		value, err := url.PathUnescape(encoded)
		if err != nil { // it quotes the value
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

func quoted(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}

func isSocket(host string) bool { return strings.HasPrefix(host, "/") }

func checkText(value string) string {
	if strings.Contains(value, "\x00") || !utf8.ValidString(value) {
		return "must be UTF-8 without a zero byte"
	}
	return ""
}

func checkHosts(value string) string {
	hosts := strings.Split(value, ",")
	for _, host := range hosts {
		if strings.HasPrefix(host, "@") {
			return "an abstract socket is not known to pgx"
		}
		if isSocket(host) != isSocket(hosts[0]) { // lib/pq would use TLS for none of them
			return "a list cannot hold both names and sockets"
		}
	}
	return checkText(value)
}

func checkPorts(value string) string {
	for port := range strings.SplitSeq(value, ",") {
		if n, err := strconv.ParseUint(cmp.Or(port, "5432"), 10, 16); err != nil || n == 0 {
			return "must be a number from 1 to 65535"
		}
	}
	return ""
}

func checkSeconds(value string) string {
	if _, err := strconv.ParseUint(value, 10, 31); err != nil {
		return "must be a number of seconds"
	}
	return ""
}

func oneOf(values ...string) func(string) string {
	return func(value string) string {
		if !slices.Contains(values, value) {
			return "must be one of " + strings.Join(values, ", ")
		}
		return ""
	}
}
