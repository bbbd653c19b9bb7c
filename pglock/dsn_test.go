package pglock_test

import (
	"database/sql"
	"net/url"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/pglock"
)

// Parameters of connection strings that are taken or left out, each one
// enough to have the server hang up when a driver sends it as it is.
var harmlessParameters = []string{
	"keepalives=1", "keepalives_idle=30", "keepalives_interval=10", "keepalives_count=3", "tcp_user_timeout=9000",
	"gssencmode=disable", "gsslib=gssapi", "gssdelegation=0", "krbsrvname=postgres", "krbspn=postgres/h", "channel_binding=prefer",
	"sslcompression=0", "sslsni=1", "sslnegotiation=postgres", "sslcertmode=allow", "ssl_min_protocol_version=TLSv1.2",
	"ssl_max_protocol_version=TLSv1.3", "requiressl=0", "sslinline=false", "client_encoding=utf8", "datestyle=ISO",
	"search_path=pg_catalog", "TimeZone=UTC", "intervalstyle=postgres", "extra_float_digits=1", "statement_timeout=9s", "lock_timeout=9s",
	"idle_session_timeout=9min", "idle_in_transaction_session_timeout=9min", "default_transaction_isolation=serializable",
	"default_transaction_read_only=off", "synchronous_commit=on", "row_security=on", "geqo=off", "jit=off", "work_mem=1MB", "role=none",
	"options=-c%20work_mem%3D2MB", "target_session_attrs=read-write", "load_balance_hosts=random", "fallback_application_name=f",
	"min_protocol_version=3.0", "max_protocol_version=latest", "connect_timeout=30", "replication=false",
	"pool_max_conns=4", "pool_min_conns=1", "pool_min_idle_conns=1", "pool_max_conn_lifetime=1h", "pool_max_conn_lifetime_jitter=1m",
	"pool_max_conn_idle_time=1h", "pool_health_check_period=1m", "pool_ping_timeout=1s", "statement_cache_capacity=9",
	"description_cache_capacity=9", "default_query_exec_mode=exec", "binary_parameters=yes", "disable_prepared_binary_result=yes",
	"pgbouncer=false", "connection_limit=1", "pool_timeout=5", "socket_timeout=5", "statement_cache_size=0", "supa=base-pooler.x",
}

func TestDSNFromEnvConnectsWithEachHarmlessParameter(t *testing.T) {
	ping := func(driver string, parameters ...string) error {
		text := server(t).URL()
		for _, parameter := range parameters {
			text = withParameter(t, text, parameter)
		}
		t.Setenv("SWANLAKE_LOCK_POSTGRES_CONNECTION", text)
		dsn, err := pglock.DSNFromEnv()
		must(t, err)
		db, err := sql.Open(driver, dsn)
		must(t, err)
		defer db.Close()
		return db.PingContext(shortly(t))
	}
	for _, driver := range drivers {
		if err := ping(driver, harmlessParameters...); err != nil {
			t.Errorf("%s with all of them: %v", driver, err)
			for _, parameter := range harmlessParameters {
				if err := ping(driver, parameter); err != nil {
					t.Errorf("%s with %s: %v", driver, parameter, err)
				}
			}
		}
	}
}

func withParameter(t *testing.T, place, parameter string) string {
	u, err := url.Parse(place)
	must(t, err)
	name, _, _ := strings.Cut(parameter, "=")
	q := u.Query()
	q.Del(name)
	u.RawQuery = strings.Trim(q.Encode()+"&"+parameter, "&")
	return strings.ReplaceAll(u.String(), "+", "%20")
}

// A parameter of the server's that is taken must get there.
func TestDSNFromEnvCarriesRunTimeParameters(t *testing.T) {
	for _, driver := range drivers {
		t.Setenv("SWANLAKE_LOCK_POSTGRES_CONNECTION", withParameter(t, server(t).URL(),
			"search_path=a%2C%20%22b%20'c%22&TimeZone=Asia/Tokyo&statement_timeout=1234&client_encoding=auto"))
		dsn, err := pglock.DSNFromEnv()
		must(t, err)
		db, err := sql.Open(driver, dsn)
		must(t, err)
		defer db.Close()
		for setting, want := range map[string]string{"search_path": `a, "b 'c"`, "timezone": "Asia/Tokyo", "statement_timeout": "1234ms",
			"client_encoding": "UTF8"} {
			if got := one[string](t, db, "SELECT current_setting($1)", setting); got != want {
				t.Errorf("%s: %s is %q, want %q", driver, setting, got, want)
			}
		}
	}
}
