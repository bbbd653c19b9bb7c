package dsn

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestFromEnvTakesProvidersStrings reads connection strings as providers hand
// them out, with made-up names and passwords. Each subtest names the page.
func TestFromEnvTakesProvidersStrings(t *testing.T) {
	for _, tc := range []struct{ name, text, want string }{
		{"Neon, neon.com/docs/connect/connect-from-any-app",
			"postgresql://alex:AbC123dEf@ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech/neondb?sslmode=require&channel_binding=require",
			"host='ep-cool-darkness-a1b2c3d4-pooler.us-east-2.aws.neon.tech' port='5432' user='alex' dbname='neondb' password='AbC123dEf' sslmode='verify-full'"},
		{"Neon without SNI, neon.com/docs/connect/connection-errors",
			"postgresql://alex:AbC123dEf@ep-cool-darkness-123456.us-east-2.aws.neon.tech/neondb?sslmode=require&options=endpoint%3Dep-cool-darkness-123456",
			"host='ep-cool-darkness-123456.us-east-2.aws.neon.tech' port='5432' user='alex' dbname='neondb' password='AbC123dEf' sslmode='require' options='endpoint=ep-cool-darkness-123456'"},
		{"Supabase, direct, supabase.com/docs/guides/database/connecting-to-postgres",
			"postgresql://postgres:pa55@db.apbkobhfnmcqqzqeeqss.supabase.co:5432/postgres",
			"host='db.apbkobhfnmcqqzqeeqss.supabase.co' port='5432' user='postgres' dbname='postgres' password='pa55' sslmode='prefer'"},
		{"Supabase, session pooler, the same page",
			"postgres://postgres.apbkobhfnmcqqzqeeqss:pa55@aws-0-eu-west-1.pooler.supabase.com:5432/postgres",
			"host='aws-0-eu-west-1.pooler.supabase.com' port='5432' user='postgres.apbkobhfnmcqqzqeeqss' dbname='postgres' password='pa55' sslmode='prefer'"},
		{"Supabase in Vercel's store, vercel.com/marketplace/supabase",
			"postgres://postgres.apbkobhfnmcqqzqeeqss:pa55@aws-0-us-east-1.pooler.supabase.com:5432/postgres?sslmode=require&supa=base-pooler.x",
			"host='aws-0-us-east-1.pooler.supabase.com' port='5432' user='postgres.apbkobhfnmcqqzqeeqss' dbname='postgres' password='pa55' sslmode='require'"},
		{"RDS, docs.aws.amazon.com/AmazonRDS: USER_ConnectToPostgreSQLInstance",
			"host=mypostgresql.c6c8mwvfdgv0.us-west-2.rds.amazonaws.com port=5432 user=awsuser password=pa55 dbname=mypgdb",
			"host='mypostgresql.c6c8mwvfdgv0.us-west-2.rds.amazonaws.com' port='5432' user='awsuser' dbname='mypgdb' password='pa55' sslmode='prefer'"},
		{"Heroku, devcenter.heroku.com/articles/connecting-heroku-postgres",
			"postgres://u8gkdj:p5e9@ec2-117-21-174-214.compute-1.amazonaws.com:6212/db982398",
			"host='ec2-117-21-174-214.compute-1.amazonaws.com' port='6212' user='u8gkdj' dbname='db982398' password='p5e9' sslmode='prefer'"},
		{"Render, render.com/docs/postgresql-creating-connecting",
			"postgresql://USER:PASSWORD@dpg-cit4u5tph6elrq0vm8og-a.oregon-postgres.render.com/exampledb",
			"host='dpg-cit4u5tph6elrq0vm8og-a.oregon-postgres.render.com' port='5432' user='USER' dbname='exampledb' password='PASSWORD' sslmode='prefer'"},
		{"Railway, docs.railway.com/guides/postgresql",
			"postgresql://postgres:TtWcZ@roundhouse.proxy.rlwy.net:31337/railway",
			"host='roundhouse.proxy.rlwy.net' port='31337' user='postgres' dbname='railway' password='TtWcZ' sslmode='prefer'"},
		{"Fly, fly.io/docs/postgres/connecting",
			"postgres://postgres:pa55@my-db.flycast:5432/my_app?sslmode=disable",
			"host='my-db.flycast' port='5432' user='postgres' dbname='my_app' password='pa55' sslmode='disable'"},
		{"Fly over several regions, fly.io/docs/postgres/advanced-guides",
			"postgres://postgres:pa55@top2.nearest.of.my-db.internal:5432/my_app?target_session_attrs=read-write",
			"host='top2.nearest.of.my-db.internal' port='5432' user='postgres' dbname='my_app' password='pa55' sslmode='prefer' target_session_attrs='read-write'"},
		{"Azure, learn.microsoft.com: azure/postgresql/connect-go",
			"host=mydemoserver.postgres.database.azure.com port=5432 dbname=postgres user=myadmin password=server_admin_password sslmode=require",
			"host='mydemoserver.postgres.database.azure.com' port='5432' user='myadmin' dbname='postgres' password='server_admin_password' sslmode='require'"},
		{"PlanetScale, planetscale.com/docs/postgres/connecting",
			"host=xxxxxxxxxx-useast1-1.horizon.psdb.cloud port=5432 user=postgres.xxxxxxxxxx password=pscale_pw_xxx dbname=my_database sslnegotiation=direct sslmode=verify-full sslrootcert=system",
			"host='xxxxxxxxxx-useast1-1.horizon.psdb.cloud' port='5432' user='postgres.xxxxxxxxxx' dbname='my_database' password='pscale_pw_xxx' sslmode='verify-full' sslnegotiation='direct' sslrootcert='system'"},
		{"Aiven, aiven.io/docs/products/postgresql/howto/connect-go",
			"postgres://avnadmin:AVNS_pa55@pg-1234-demo.aivencloud.com:13039/defaultdb?sslmode=require",
			"host='pg-1234-demo.aivencloud.com' port='13039' user='avnadmin' dbname='defaultdb' password='AVNS_pa55' sslmode='require'"},
		{"pgxpool, pkg.go.dev/github.com/jackc/pgx/v5/pgxpool#ParseConfig",
			"postgres://jack:secret@pg.example.com:5432/mydb?sslmode=verify-ca&pool_max_conns=10&pool_max_conn_lifetime=1h30m",
			"host='pg.example.com' port='5432' user='jack' dbname='mydb' password='secret' sslmode='verify-ca'"},
		{"gorm, gorm.io/docs/connecting_to_the_database.html",
			"host=localhost user=gorm password=gorm dbname=gorm port=9920 sslmode=disable TimeZone=Asia/Shanghai",
			"host='localhost' port='9920' user='gorm' dbname='gorm' password='gorm' sslmode='disable' timezone='Asia/Shanghai'"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			setDSNEnv(t, vars{"PGCONNECTION": tc.text})
			got, err := FromEnv()
			if err != nil || got != tc.want {
				t.Fatalf("got  %s, %v\nwant %s", got, err, tc.want)
			}
			readDSN(t, got)
		})
	}
}

func TestFromEnvHonoursOrLeavesOut(t *testing.T) {
	for text, want := range map[string]string{
		"keepalives=1 keepalives_idle=30 keepalives_interval=10 keepalives_count=3 tcp_user_timeout=9000": "",
		"gssencmode=disable": "", "gssencmode=prefer": "", "channel_binding=prefer": "", "channel_binding=disable": "",
		"load_balance_hosts=random": "", "ssl_min_protocol_version=TLSv1.2": "", "requiressl=0": "", "replication=false": "",
		"datestyle='ISO, MDY'": "", "sslcertmode=allow": "", "pgbouncer=false connection_limit=1": "", "sslcrl=''": "",
		"default_query_exec_mode=exec binary_parameters=yes":              "",
		"client_encoding=utf-8":                                           " client_encoding='UTF8'",
		"client_encoding=auto":                                            " client_encoding='UTF8'",
		"search_path='a, b' STATEMENT_TIMEOUT=5s geqo=off":                " search_path='a, b' statement_timeout='5s'",
		"options='-c a.b=1' target_session_attrs=primary":                 " options='-c a.b=1' target_session_attrs='primary'",
		"min_protocol_version=3.0":                                        " min_protocol_version='3.0'",
		"min_protocol_version=3.2":                                        " min_protocol_version='3.2' max_protocol_version='latest'",
		"min_protocol_version=3.0 max_protocol_version=3.2":               " min_protocol_version='3.0' max_protocol_version='3.2'",
		"krbsrvname=postgres":                                             " krbsrvname='postgres'",
		"fallback_application_name=fall":                                  " application_name='fall'",
		"fallback_application_name=fall application_name=mine":            " application_name='mine'",
		"fallback_application_name=fall application_name='' keepalives=0": " application_name='fall'",
	} {
		setDSNEnv(t, vars{"PGCONNECTION": "host=h user=u dbname=d sslmode=require " + text})
		got, err := FromEnv()
		if want := "host='h' port='5432' user='u' dbname='d' sslmode='require'" + want; err != nil || got != want {
			t.Errorf("%s: got %s, %v\nwant %s", text, got, err, want)
			continue
		}
		readDSN(t, got)
	}
}

// lib/pq cannot bind to the channel, so the certificate must say who is there.
func TestFromEnvBindsToTheCertificate(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "sslmode='verify-full'",
		"sslmode=prefer":    "sslmode='verify-full'",
		"sslmode=verify-ca": "sslmode='verify-full'",
		"sslmode=verify-ca sslrootcert=system sslnegotiation=direct": "sslmode='verify-full' sslnegotiation='direct' sslrootcert='system'",
		"sslmode=disable": "PGCONNECTION: sslmode: must be require at least, because of PGCONNECTION: channel_binding",
		"host=/tmp":       "PGCONNECTION: channel_binding: asks for TLS",
	} {
		setDSNEnv(t, vars{"PGCONNECTION": "host=h user=u channel_binding=require " + text})
		got, err := FromEnv()
		if err != nil && !strings.HasPrefix(err.Error(), "pglock: "+want) || err == nil && !strings.HasSuffix(got, want) {
			t.Errorf("%s: got %s, %v\nwant %s", text, got, err, want)
		}
	}
}

func TestFromEnvRefusesByNameWhatItCannotGuard(t *testing.T) {
	const secret = "hunter2"
	for _, text := range []string{
		"channel_binding=" + secret, "require_auth=scram-sha-256", "requirepeer=postgres", "requiressl=1", "gssencmode=require",
		"gssdelegation=1", "sslcrl=" + secret, "sslcrldir=/crl", "sslcertmode=require", "sslcertmode=disable", "sslpassword=" + secret,
		"sslinline=true", "sslaccept=strict", "ssl_min_protocol_version=TLSv1.3", "scram_client_key=" + secret,
		"scram_server_key=" + secret, "oauth_client_secret=" + secret, "datestyle=German", "replication=database", "pgbouncer=true",
		"schema=public", "load_balance_hosts=" + secret, "client_encoding=LATIN1", "min_protocol_version=" + secret,
	} {
		name, value, _ := strings.Cut(text, "=")
		for _, whole := range []string{"host=h " + name + "='" + value + "'", "postgres://h/d?" + text} {
			setDSNEnv(t, vars{"PGCONNECTION": whole})
			dsn, err := FromEnv()
			if err == nil || !strings.HasPrefix(err.Error(), "pglock: PGCONNECTION: "+name+": ") || strings.Contains(err.Error(), secret) {
				t.Errorf("%s: got %s, %v", whole, dsn, err)
			}
		}
	}
	variables := vars{"PGSSLCRL": "f", "PGSSLCRLDIR": "d", "PGREQUIREPEER": "p", "PGREQUIRESSL": "1", "PGGSSENCMODE": "require",
		"PGSSLMINPROTOCOLVERSION": "TLSv1.3"}
	for name, value := range variables {
		setDSNEnv(t, vars{"PGHOST": "h", name: value})
		if dsn, err := FromEnv(); err == nil || !strings.HasPrefix(err.Error(), "pglock: "+name+": ") {
			t.Errorf("%s=%s: got %s, %v", name, value, dsn, err)
		}
		setDSNEnv(t, vars{name: value})
		if _, err := FromEnv(); !errors.Is(err, ErrNoDSN) {
			t.Errorf("%s=%s alone: got %v", name, value, err)
		}
	}
}

// Each extra either may be left out or says what to do instead.
func TestExtras(t *testing.T) {
	for _, e := range extras {
		if isKey(e.name) || e.name != strings.ToLower(e.name) || (e.harmless == nil) != (e.cure == "") {
			t.Errorf("%+v", e)
		}
	}
}

func TestFromEnvSaysThatAServiceIsUnknown(t *testing.T) {
	file := filepath.Join(t.TempDir(), "services")
	if err := os.WriteFile(file, []byte("[known]\nhost=db\n[ blank ]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		env  vars
		want []string
	}{
		{vars{"PGSERVICE": "other", "PGSERVICEFILE": file}, []string{"the service [other] is not in " + file}},
		{vars{"PGSERVICE": "blank", "PGSERVICEFILE": file}, []string{"the service [blank] is not in " + file}}, // to pgx
		{vars{"PGSERVICE": "known", "PGSERVICEFILE": file + "x"}, []string{"the service [known] cannot be", file + "x: no such file"}},
		{vars{"PGSERVICE": "known"}, []string{"the service [known] cannot be", "/.pg_service.conf: no such file"}},
		{vars{"PGSERVICE": "postgres://u:hunter2@h/d", "PGSERVICEFILE": file}, []string{"a service of that name is not in " + file}},
	} {
		setDSNEnv(t, tc.env)
		dsn, err := FromEnv()
		if err == nil || !strings.HasPrefix(err.Error(), "pglock: PGSERVICE: ") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v: got %s, %v", tc.env, dsn, err)
			continue
		}
		for _, want := range tc.want {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%v: got %v\nwant %s", tc.env, err, want)
			}
		}
	}
}
