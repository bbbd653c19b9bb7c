package dsn

import (
	"errors"
	"strings"
	"testing"
)

func TestFromEnvSaysWhenNothingIsSet(t *testing.T) {
	for _, env := range []vars{
		nil,
		{"PGHOST": "", "SWANLAKE_LOCK_POSTGRES_CONNECTION": "", "PGCONNECTION": ""},
		{"PGSSLMODE": "disable", "PGPASSFILE": "f", "PGAPPNAME": "a"}, // say nothing of where
	} {
		setDSNEnv(t, env)
		if dsn, err := FromEnv(); !errors.Is(err, ErrNoDSN) || dsn != "" {
			t.Errorf("%v: got %q, %v", env, dsn, err)
		}
	}
	for _, name := range placeVars {
		setDSNEnv(t, vars{name: "1"})
		if _, err := FromEnv(); errors.Is(err, ErrNoDSN) {
			t.Errorf("%s is set: got %v", name, err)
		}
	}
	for _, name := range append([]string{"PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGPASSWORD"}, connectionVars...) {
		if !strings.Contains(ErrNoDSN.Error(), name) {
			t.Errorf("%q does not name %s", ErrNoDSN, name)
		}
	}
}

func TestFromEnvNamesTheBadVariableAndNotItsValue(t *testing.T) {
	const v, secret = "SWANLAKE_LOCK_POSTGRES_CONNECTION", "hunter2"
	for _, tc := range []struct {
		env  vars
		want string // after "pglock: "
	}{
		{vars{v: "hunter2"}, v + ": is neither"},
		{vars{v: "mysql://u:hunter2@h/d"}, v + ": is neither"},
		{vars{v: "mysql://u:hunter2@h/d?a=b"}, v + ": the setting after the start"},
		{vars{"PGCONNECTION": " \n"}, "PGCONNECTION: holds no setting"},
		{vars{v: "postgres://:@/"}, v + ": holds no setting"},
		{vars{v: "host=db password=my hunter2 user=u"}, v + ": has a key without ="},
		{vars{v: "host=db password=my hunter2=x user=u"}, v + ": the setting after password"},
		{vars{v: "host=db =hunter2"}, v + ": the setting after host"},
		{vars{v: "password='hunter2"}, v + ": has a single quote"},
		{vars{v: `password='hunter2\'`}, v + ": has a single quote"},
		{vars{v: `password=hunter2\`}, v + ": ends in a backslash"},
		{vars{v: `password='hunter2\`}, v + ": ends in a backslash"},
		{vars{v: "password= host=hunter2"}, v + ": has a blank"},
		{vars{v: "database=hunter2"}, v + ": the setting after the start"},
		{vars{v: "host=db no_such_setting=hunter2"}, v + ": the setting after host"},
		{vars{v: "host=db hostaddr=127.0.0.1"}, v + ": hostaddr is not"},
		{vars{v: "service=hunter2"}, v + ": service means"},
		{vars{v: "host=h port=hunter2"}, v + ": port: must be a number from 1"},
		{vars{v: "host=h port=0"}, v + ": port: must be a number from 1"},
		{vars{v: "host=h port=65536"}, v + ": port: must be a number from 1"},
		{vars{v: "host=h port=1,2"}, v + ": port: lists 2 ports for 1 hosts"},
		{vars{v: "host=a,b,c port=1,2"}, v + ": port: lists 2 ports for 3 hosts"},
		{vars{v: "host=@hunter2"}, v + ": host: an abstract socket"},
		{vars{v: "host=/tmp,hunter2"}, v + ": host: a list cannot"},
		{vars{v: "host=h sslmode=hunter2"}, v + ": sslmode: must be one of disable,"},
		{vars{v: "host=h connect_timeout=-1"}, v + ": connect_timeout: must be"},
		{vars{v: "host=h connect_timeout=2147483648"}, v + ": connect_timeout: must be"},
		{vars{v: "host=h target_session_attrs=hunter2"}, v + ": target_session_attrs: must be one of any,"},
		{vars{v: "host=h sslmode=prefer sslnegotiation=direct"},
			v + ": sslmode: must be require at least, because of " + v + ": sslnegotiation"},
		{vars{v: "host=h sslmode=require", "PGSSLROOTCERT": "system"},
			v + ": sslmode: must be verify-full at least, because of PGSSLROOTCERT"},
		{vars{v: "host=/tmp sslrootcert=system"}, v + ": sslrootcert: asks for TLS"},
		{vars{v: "password=hunter2\xff"}, v + ": password: must be UTF-8"},
		{vars{v: "postgres://u:hunter2%FF@h"}, v + ": password: must be UTF-8"},
		{vars{v: "postgres://u:hunter2%00@h"}, v + ": password: must be UTF-8"},
		{vars{v: "postgres://u:hunter2%zz@h"}, v + ": has a % without"},
		{vars{v: "postgres://u:hunter2@x@h/d"}, v + ": holds an @ too many"},
		{vars{v: "postgres://u:hunter2/x@h/d"}, v + ": holds an @ too many"},
		{vars{v: "postgres://u:hunter2 x@h/d"}, v + ": holds a blank"},
		{vars{v: "postgres://u:hunter2@[::1/d"}, v + ": has an IPv6 address"},
		{vars{v: "postgres://u:hunter2@[]/d"}, v + ": has an IPv6 address"},
		{vars{v: "host=h\xff"}, v + ": host: must be UTF-8"},
		{vars{v: "postgres://u:hunter2@[::1]5/d"}, v + ": has an IPv6 address"},
		{vars{v: "postgres://u:hunter2@h/d?hunter2"}, v + ": has a parameter"},
		{vars{v: "postgres://u@h/d?password=hunter2=x"}, v + ": has a parameter"},
		{vars{v: "postgres://u@h/d?hunter2=x"}, v + ": the setting after dbname"},
		{vars{v: "postgres://u:hunter2@h:p/d"}, v + ": port: must be a number"},
		{vars{"PGPORT": "hunter2"}, "PGPORT: must be a number"},
		{vars{"PGHOST": "a,b", "PGPORT": "1,2,3"}, "PGPORT: lists 3 ports for 2 hosts"},
		{vars{"PGHOST": "h", "PGSSLMODE": "hunter2"}, "PGSSLMODE: must be one of"},
		{vars{"PGPASSWORD": "hunter2\xff"}, "PGPASSWORD: must be UTF-8"},
		// What the drivers read differently: each would connect somewhere else.
		{vars{"PGHOSTADDR": "10.0.0.1", "PGHOST": "hunter2"}, "PGHOSTADDR: cannot be combined with PGHOST:"},
		{vars{"PGHOSTADDR": "10.0.0.1", v: "host=hunter2"}, "PGHOSTADDR: cannot be combined with " + v + ": host:"},
		{vars{"PGHOSTADDR": "10.0.0.1", "PGSERVICE": "s"}, "PGHOSTADDR: cannot be combined with PGSERVICE:"},
		{vars{"PGHOSTADDR": "10.0.0.1,10.0.0.2"}, "PGHOSTADDR: must be one IP"},
		{vars{"PGHOSTADDR": "hunter2"}, "PGHOSTADDR: must be one IP"},
		{vars{"PGSERVICE": "s", v: "host=h"}, "PGSERVICE: cannot be combined with " + v + ":"},
		{vars{"PGHOST": "a,b", v: "host=h"}, "PGHOST: a list cannot be combined with " + v + ":"},
		{vars{"PGPORT": "1,2", "PGCONNECTION": "host=a,b"}, "PGPORT: a list cannot be combined with PGCONNECTION:"},
		{vars{"PGHOST": "a,b", "PGSERVICE": "s"}, "PGHOST: a list cannot be combined with PGSERVICE:"},
	} {
		setDSNEnv(t, tc.env)
		dsn, err := FromEnv()
		switch {
		case err == nil:
			t.Errorf("%q is accepted: %s", tc.env, dsn)
		case !strings.HasPrefix(err.Error(), "pglock: "+tc.want), strings.Contains(err.Error(), secret),
			dsn != "", errors.Is(err, ErrNoDSN):
			t.Errorf("%q: got %q, %v\nwant %s", tc.env, dsn, err, tc.want)
		}
	}
}
