package dsn

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// sslModes are in order of strength.
var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

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
