package dsn

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// sslModes are the values of sslmode, in order of strength.
var sslModes = []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}

// key is a setting that lib/pq and pgx understand alike, and the variable that
// libpq reads it from.
type key struct {
	name, env string
	check     func(value string) (problem string)
}

var keys = []key{
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
	// The drivers read the variables of these themselves.
	{"krbsrvname", "", checkText},
	{"krbspn", "", checkText},
	{"min_protocol_version", "", oneOf(protocols...)},
	{"max_protocol_version", "", oneOf(protocols...)},
	{"client_encoding", "", checkEncoding},
}

// protocols are the versions of the protocol, in order.
var protocols = []string{"3.0", "3.2", "latest"}

// runTimeParameters are the settings of the server that connection strings are
// seen with. libpq takes them in options alone. The drivers send every key that
// they do not know as such a setting, and an error of the server would quote an
// unknown one, which may be a piece of a password that lacks its quotes: so any
// other key is refused here. The server ignores the case of the names.
var runTimeParameters = []string{
	"search_path", "role", "timezone", "intervalstyle", "extra_float_digits",
	"statement_timeout", "lock_timeout", "transaction_timeout",
	"idle_session_timeout", "idle_in_transaction_session_timeout",
	"default_transaction_isolation", "default_transaction_read_only",
	"synchronous_commit", "row_security", "jit", "work_mem",
}

func init() {
	for _, name := range runTimeParameters {
		keys = append(keys, key{name, "", checkText})
	}
}

func isKey(name string) bool {
	return slices.ContainsFunc(keys, func(k key) bool { return k.name == name })
}

// An extra is a setting that the result cannot carry, because one of the
// drivers would send it to the server as a run-time parameter, which ends the
// connection. It is left out if its value is harmless, else refused.
type extra struct {
	name string
	// env is the variable that libpq reads it from, if neither driver reads it.
	env string
	// harmless are the values that may be left out; nil: all.
	harmless []string
	// cure says why another value is refused and what to do.
	cure string
}

var no = []string{"0", "f", "false", "n", "no", "off"}

const (
	useTLS = "neither driver encrypts with GSSAPI: write sslmode=verify-full"
	noAuth = "lib/pq takes whatever way to log in the server asks for: leave it out, with sslmode=verify-full to be sure of the server"
	noCRL  = "neither driver looks for revoked certificates: leave it out"
)

var extras = []extra{
	// These guard the connection. [fillIn] handles channel_binding=require.
	{"channel_binding", "", []string{"disable", "prefer", "require"}, "must be one of disable, prefer, require"},
	{"require_auth", "", []string{}, noAuth},
	{"requirepeer", "PGREQUIREPEER", []string{}, "neither driver looks who serves a socket: leave it out"},
	{"requiressl", "PGREQUIRESSL", no, "write sslmode=require, or better verify-full"},
	{"gssencmode", "PGGSSENCMODE", []string{"disable", "prefer"}, useTLS},
	{"gssdelegation", "", no, "neither driver delegates credentials: leave it out"},
	{"sslcrl", "PGSSLCRL", []string{}, noCRL},
	{"sslcrldir", "PGSSLCRLDIR", []string{}, noCRL},
	{"sslcertmode", "", []string{"allow"}, "lib/pq sends the certificate that it has when it is asked for one: leave it out"},
	{"sslpassword", "", []string{}, "lib/pq reads no encrypted key: let sslkey name one that is not, in a file that nobody else can read"},
	{"sslinline", "", no, "pgx reads sslcert, sslkey and sslrootcert from files: name those"},
	{"sslaccept", "", []string{"accept_invalid_certs"}, "write sslmode=verify-full"}, // Prisma's
	// Both drivers ask for TLS 1.2 at least, as crypto/tls does.
	{"ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION", []string{"TLSv1", "TLSv1.1", "TLSv1.2"}, "pgx takes TLS 1.2 too: leave it out"},
	{"scram_client_key", "", []string{}, "neither driver logs in with it: give the password"},
	{"scram_server_key", "", []string{}, "neither driver logs in with it: give the password"},
	{"oauth_issuer", "", []string{}, "lib/pq does not know OAuth"},
	{"oauth_client_id", "", []string{}, "lib/pq does not know OAuth"},
	{"oauth_client_secret", "", []string{}, "lib/pq does not know OAuth"},
	{"oauth_scope", "", []string{}, "lib/pq does not know OAuth"},
	// These would change the meaning of a session.
	{"datestyle", "", []string{"ISO", "ISO, MDY", "ISO,MDY"}, "lib/pq needs ISO, MDY"},
	{"replication", "", no, "a connection for replication takes no locks: leave it out"},
	{"pgbouncer", "", no, "a pooler in transaction mode keeps no lock: connect to PostgreSQL itself, or to a pooler in session mode"}, // Prisma's
	{"schema", "", []string{}, "write search_path"},                                                                                   // Prisma's
	// These say how a connection is watched. Go's net package sends keepalives
	// itself, and pglock asks the server at intervals of its own.
	{"keepalives", "", nil, ""}, {"keepalives_idle", "", nil, ""}, {"keepalives_interval", "", nil, ""}, {"keepalives_count", "", nil, ""},
	{"tcp_user_timeout", "", nil, ""},
	// This says in which order hosts are tried. Only target_session_attrs says
	// which of them will do.
	{"load_balance_hosts", "", []string{"disable", "random"}, "must be one of disable, random"},
	{"fallback_application_name", "", nil, ""}, // see parseConnection
	{"ssl_max_protocol_version", "", nil, ""}, {"sslcompression", "", nil, ""}, {"sslkeylogfile", "", nil, ""}, {"gsslib", "", nil, ""},
	{"authtype", "", nil, ""}, {"tty", "", nil, ""},
	{"geqo", "", nil, ""}, // how to plan large joins; lib/pq takes it and does not send it
	// These say how one client works: pgx, pgxpool, lib/pq, Prisma, and the
	// mark that Vercel puts on Supabase's strings.
	{"statement_cache_capacity", "", nil, ""}, {"description_cache_capacity", "", nil, ""}, {"default_query_exec_mode", "", nil, ""},
	{"pool_max_conns", "", nil, ""}, {"pool_min_conns", "", nil, ""}, {"pool_min_idle_conns", "", nil, ""},
	{"pool_max_conn_lifetime", "", nil, ""}, {"pool_max_conn_lifetime_jitter", "", nil, ""}, {"pool_max_conn_idle_time", "", nil, ""},
	{"pool_health_check_period", "", nil, ""}, {"pool_ping_timeout", "", nil, ""},
	{"binary_parameters", "", nil, ""}, {"disable_prepared_binary_result", "", nil, ""},
	{"connection_limit", "", nil, ""}, {"pool_timeout", "", nil, ""}, {"socket_timeout", "", nil, ""}, {"statement_cache_size", "", nil, ""},
	{"supa", "", nil, ""},
}

// check returns what is wrong with a value that cannot be left out.
func (e extra) check(value string) (problem string) {
	if value == "" || e.harmless == nil || slices.Contains(e.harmless, value) {
		return ""
	}
	return e.cure
}

func findExtra(name string) (extra, bool) {
	i := slices.IndexFunc(extras, func(e extra) bool { return e.name == name })
	if i < 0 {
		return extra{}, false
	}
	return extras[i], true
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

// checkEncoding accepts the names that lib/pq has for UTF8, and libpq's auto.
func checkEncoding(value string) string {
	switch strings.ReplaceAll(strings.ToLower(value), "-", "") {
	case "utf8", "unicode", "auto":
		return ""
	}
	return "must be UTF8, which is what both drivers speak"
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
