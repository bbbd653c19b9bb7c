// Package dsn makes one connection string of the environment's variables, which
// lib/pq and pgx read alike.
package dsn

import (
	"cmp"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"slices"
	"strings"
)

// ErrNoDSN is pglock.ErrNoDSN.
var ErrNoDSN = errors.New("pglock: no PostgreSQL server is configured: set SWANLAKE_LOCK_POSTGRES_CONNECTION " +
	"or PGCONNECTION, or PGHOST, PGPORT, PGUSER, PGDATABASE and PGPASSWORD")

var (
	// connectionVars hold a whole connection string each. The first one that is set is used.
	connectionVars = []string{"SWANLAKE_LOCK_POSTGRES_CONNECTION", "PGCONNECTION"}
	// placeVars are those of which one at least must be set when no connection variable is.
	placeVars = []string{"PGHOST", "PGHOSTADDR", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD", "PGSERVICE"}
)

// FromEnv is pglock.DSNFromEnv, which is documented there.
func FromEnv() (string, error) { return fromVars(os.Getenv) }

// setting is a value and what an error about it names.
type setting struct{ value, from string }

func faulty(from, problem string) error { return fmt.Errorf("pglock: %s: %s", from, problem) }

func fromVars(getenv func(string) string) (string, error) {
	isSet := func(name string) bool { return getenv(name) != "" }
	settings := make(map[string]setting)
	for _, k := range keys {
		if k.env != "" && isSet(k.env) {
			settings[k.name] = setting{getenv(k.env), k.env}
		}
	}

	winner := "PGSERVICE" // the variable that overrides the other PG variables
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
	for _, e := range extras {
		if e.env != "" {
			if problem := e.check(getenv(e.env)); problem != "" {
				return "", faulty(e.env, problem)
			}
		}
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
		if problem := findService(getenv("PGSERVICE"), getenv); problem != "" {
			return "", faulty("PGSERVICE", problem)
		}
		return "service=" + quoted(getenv("PGSERVICE")), nil
	}

	for _, k := range keys {
		if s := settings[k.name]; s.value != "" {
			if problem := k.check(s.value); problem != "" {
				return "", faulty(s.from, problem)
			}
		}
	}
	if err := fillIn(settings); err != nil {
		return "", err
	}
	var dsn []string
	for _, k := range keys {
		if s := settings[k.name]; s.value != "" {
			dsn = append(dsn, k.name+"="+quoted(s.value))
		}
	}
	return strings.Join(dsn, " "), nil
}

// fillIn adds the settings that the result must name, and checks those that
// depend on others.
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
	atLeast(settings)
	if s := settings["client_encoding"]; s.value != "" {
		settings["client_encoding"] = setting{value: "UTF8"}
	}

	usual, least, asked := "prefer", "disable", ""
	if s := settings["sslnegotiation"]; s.value == "direct" {
		usual, least, asked = "require", "require", s.from
	}
	if s := settings["sslrootcert"]; s.value == "system" {
		usual, least, asked = "verify-full", "verify-full", s.from
	}
	// lib/pq cannot bind to the channel. The binding would prove that nobody is
	// in between, which the certificate proves too.
	binding := settings["channel_binding"]
	if binding.value == "require" {
		asked = binding.from
	}
	if asked != "" && isSocket(hosts[0]) {
		return faulty(asked, "asks for TLS, which a Unix socket does not have")
	}
	mode := fill("sslmode", usual)
	if binding.value == "require" && mode == "disable" {
		return faulty(settings["sslmode"].from, "must be require at least, because of "+asked)
	}
	if binding.value == "require" {
		settings["sslmode"] = setting{value: "verify-full"}
		return nil
	}
	if slices.Index(sslModes, mode) < slices.Index(sslModes, least) {
		return faulty(settings["sslmode"].from, "must be "+least+" at least, because of "+asked)
	}
	return nil
}

// atLeast sets max_protocol_version as pgx does. lib/pq's own default is always
// 3.0, and it then refuses a higher min_protocol_version.
func atLeast(settings map[string]setting) {
	least, most := settings["min_protocol_version"].value, settings["max_protocol_version"].value
	if most == "" && slices.Index(protocols, least) > 0 {
		settings["max_protocol_version"] = setting{value: "latest"}
	}
}

func quoted(value string) string {
	return "'" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'"
}
