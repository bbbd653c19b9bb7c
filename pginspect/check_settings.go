package pginspect

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/db"
)

// A limit is a timeout that ends what swanlock needs, if it is too short.
type limit struct {
	name   string
	least  time.Duration // one that is at least that long does no harm; 0: any does
	level  Level
	effect string
}

var limits = []limit{
	{"idle_session_timeout", 0, Warning, "It ends a session that is idle for that long, and with it a lock without a TTL on a Session. (A TTL sets it for its own session; a Pool's heartbeat restarts it every second.)"},
	{"statement_timeout", 5 * time.Second, Warning, "It cancels a wait in line, which lasts 3 s at most, or a statement of the audit: the call fails."},
	{"lock_timeout", time.Second, Warning, "It cancels a row of the audit while somebody locks the table for a moment: the call fails with ErrAudit. (Waits in line set their own.)"},
	{"idle_in_transaction_session_timeout", time.Minute, Note, "It ends a session that has a transaction open and does nothing for that long, and with it every lock on it."},
	{"transaction_timeout", time.Minute, Note, "It ends a session whose transaction lasts that long, and with it every lock on it. (A Pool sets none for its own sessions.)"},
}

// timeouts looks at those that a role, the database, the server or the
// connection sets.
func (d *doctor) timeouts() {
	well := true
	for _, l := range limits {
		for _, r := range d.roles {
			name, value, _ := strings.Cut(r.Setting, "=")
			if name != l.name || d.overridden(r, name) {
				continue
			}
			who, fix := setBy(r)
			well = d.limit(l, value, who, fix+" RESET "+l.name) && well
		}
		s, ok := d.settings[l.name]
		if ok && !slices.Contains([]string{"global", "database", "user", "database user"}, s.Source) {
			well = d.limit(l, s.Setting+s.Unit, "the "+s.Source, d.set(l.name, "0", s.Source)) && well
		}
	}
	if well {
		d.find("timeouts", OK, "no timeout of the server, the database or a role is in the way", "A timeout that is shorter than a wait or an idle lock ends it.", "")
	}
}

// overridden reports whether what r sets for all databases is set once more for this
// one, so that no session here gets it.
func (d *doctor) overridden(r db.CheckRoleSettingsRow, name string) bool {
	return r.Database == "" && slices.ContainsFunc(d.roles, func(other db.CheckRoleSettingsRow) bool {
		return other.Role == r.Role && other.Database != "" && strings.HasPrefix(other.Setting, name+"=")
	})
}

// setBy names what has set r, and the statement that changes it.
func setBy(r db.CheckRoleSettingsRow) (who, statement string) {
	switch {
	case r.Role == "" && r.Database == "":
		return "ALTER ROLE ALL", "ALTER ROLE ALL"
	case r.Database == "":
		return "role " + r.Role, "ALTER ROLE " + r.Role
	case r.Role == "":
		return "database " + r.Database, "ALTER DATABASE " + r.Database
	}
	return "role " + r.Role + " in database " + r.Database, "ALTER ROLE " + r.Role + " IN DATABASE " + r.Database
}

// limit reports whether a timeout does no harm.
func (d *doctor) limit(l limit, value, who, fix string) bool {
	t, err := duration(value)
	switch {
	case err != nil || t == 0 || l.least > 0 && t >= l.least:
		return true
	}
	d.find("timeouts", l.level, fmt.Sprintf("%s is %v, by %s", l.name, t, who), l.effect, fix)
	return l.level == Note
}

// set is the statement that sets for this role and database a setting that comes from
// source. What the server has set is set for the database: ALTER SYSTEM is refused in a
// transaction, which psql -c makes of several statements, and wants a reload after it.
func (d *doctor) set(name, value, source string) string {
	role, database := quoted(d.server.Role), quoted(d.server.Database)
	who := "ALTER DATABASE " + database
	switch source {
	case "client":
		return "take " + name + " out of the connection string (or PGOPTIONS)"
	case "user":
		who = "ALTER ROLE " + role
	case "database user":
		who = "ALTER ROLE " + role + " IN DATABASE " + database
	}
	return who + " SET " + name + " = " + value
}

// network looks at how the server finds out that a client is gone.
func (d *doctor) network() {
	const why = "A client that dies while the server runs its statement keeps its locks, and its place in line, until that ends. This makes the server look whether the client is there."
	check := d.settings["client_connection_check_interval"]
	if t, err := duration(check.Setting + check.Unit); err == nil && t == 0 {
		d.find("dead clients", Warning, "client_connection_check_interval is 0: the server does not look", why,
			d.set("client_connection_check_interval", "'5s'", check.Source))
	} else {
		d.find("dead clients", OK, fmt.Sprintf("the server looks every %v whether a client is there", t), why, "")
	}
	const aliveWhy = "A host that is cut off without a word keeps a lock without a TTL until TCP gives up. A Pool and a TTL find out sooner by themselves."
	idle := d.settings["tcp_keepalives_idle"]
	seconds, err := strconv.Atoi(idle.Setting)
	switch {
	case !d.server.Tcp:
		d.find("keepalives", OK, "this connection is a Unix-domain socket, which cannot be cut off", aliveWhy, "")
	case err == nil && (seconds == 0 || seconds > 300):
		is := fmt.Sprintf("TCP keepalives begin after %v", time.Duration(seconds)*time.Second)
		if seconds == 0 {
			is = "TCP keepalives begin when the server's system says so: after two hours, often"
		}
		d.find("keepalives", Warning, is, aliveWhy, strings.Join([]string{d.set("tcp_keepalives_idle", "60", idle.Source),
			d.set("tcp_keepalives_interval", "10", idle.Source), d.set("tcp_keepalives_count", "3", idle.Source)}, "; "))
	default:
		d.find("keepalives", OK, fmt.Sprintf("TCP keepalives begin after %v", time.Duration(seconds)*time.Second), aliveWhy, "")
	}
}

// waits looks at what decides how long a wait in the server lasts, and what it
// leaves in the log.
func (d *doctor) waits() {
	const why = "A wait in line is asked for anew every nine tenths of it, so that it is never part of a deadlock: each of these leaves two lines in the log. A longer one means that a Session's other callers wait for longer."
	s := d.settings["deadlock_timeout"]
	t, err := duration(s.Setting + s.Unit)
	switch {
	case err != nil:
	case t < 200*time.Millisecond:
		d.find("deadlock_timeout", Warning, fmt.Sprintf("it is %v: waiters ask %.0f times a second", t, 1/(0.9*t.Seconds())), why, d.set("deadlock_timeout", "'1s'", s.Source))
	case t > 10*time.Second:
		d.find("deadlock_timeout", Note, fmt.Sprintf("it is %v: real deadlocks stay for that long; waits in line last 3 s at most all the same", t), why, d.set("deadlock_timeout", "'1s'", s.Source))
	default:
		d.find("deadlock_timeout", OK, fmt.Sprintf("it is %v", t), why, "")
	}
	const logWhy = "It logs waits that are longer than deadlock_timeout. Waits in line are shorter, so it costs nothing here, and shows other programs that wait for your locks or your tables."
	if s := d.settings["log_lock_waits"]; s.Setting == "off" {
		d.find("log_lock_waits", Note, "it is off", logWhy, d.set("log_lock_waits", "on", s.Source))
	} else {
		d.find("log_lock_waits", OK, "it is on", logWhy, "")
	}
}

var units = map[string]time.Duration{"us": time.Microsecond, "ms": time.Millisecond, "": time.Millisecond, "s": time.Second, "min": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// duration reads one of PostgreSQL's, such as 500ms, "1 min" or 30000, of which
// the unit is the millisecond.
func duration(s string) (time.Duration, error) {
	s = strings.TrimSpace(s)
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz ")
	n, err := strconv.ParseFloat(digits, 64)
	unit, ok := units[strings.TrimSpace(s[len(digits):])]
	if err != nil || !ok {
		return 0, fmt.Errorf("%.40q: %w", s, errNoUnit)
	}
	return time.Duration(n * float64(unit)), nil
}
