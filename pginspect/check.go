package pginspect

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// A Level is how much a Finding matters.
type Level string

const (
	OK      Level = "ok"      // nothing is to be done
	Note    Level = "note"    // something does not work here that not everybody needs
	Warning Level = "warning" // locks work, but something will hurt some day
	Failure Level = "failure" // locks, or what was set up for them, do not work
)

// A Finding is what Check found about one subject.
type Finding struct {
	Subject string `json:"subject"`
	Level   Level  `json:"level"`
	Is      string `json:"is"`            // what was found
	Why     string `json:"why"`           // why it matters
	Fix     string `json:"fix,omitempty"` // the statement or command that mends it; "": nothing is to be done
}

// A Report is what Check found.
type Report struct {
	Server   string    `json:"server"` // version, database and role
	Well     bool      `json:"well"`   // nothing is worse than a Note
	Findings []Finding `json:"findings"`
}

// A doctor gathers findings.
type doctor struct {
	server   db.CheckServerRow
	settings map[string]db.CheckSettingsRow
	roles    []db.CheckRoleSettingsRow
	audit    table
	fences   db.CheckFencesRow
	skew     time.Duration // the server's clock minus ours
	doubt    time.Duration // by how much skew may be wrong
	found    []Finding
}

// Check examines the server that on is connected to, as the role of on, for use
// with swanlock. It only looks. The error is that of the connection: whatever
// the server is found to be is a Finding.
func Check(ctx context.Context, on *sql.DB) (Report, error) {
	if on == nil {
		return Report{}, errNil
	}
	d := &doctor{settings: map[string]db.CheckSettingsRow{}}
	conn, err := on.Conn(ctx)
	if err != nil {
		return Report{}, explain("connect", err)
	}
	defer conn.Close()
	pooled, err := d.pooler(ctx, on, conn)
	if err != nil {
		return Report{}, explain("connect", err)
	}
	if err := d.ask(ctx, conn); err != nil {
		if pooled {
			return Report{Findings: d.found}, nil // a statement met a session that does not know it
		}
		return Report{}, explain("ask the server about itself", err)
	}
	d.version()
	d.standby()
	d.room()
	d.timeouts()
	d.network()
	d.waits()
	d.table()
	d.rights()
	d.clock()
	well := !slices.ContainsFunc(d.found, func(f Finding) bool { return f.Level == Warning || f.Level == Failure })
	return Report{fmt.Sprintf("PostgreSQL %s, database %s, role %s", d.server.Version, d.server.Database, d.server.Role), well, d.found}, nil
}

func (d *doctor) find(subject string, level Level, is, why, fix string) {
	d.found = append(d.found, Finding{subject, level, is, why, fix})
}

// checkedSettings are those that CheckSettings is asked for.
var checkedSettings = []string{
	"client_connection_check_interval", "deadlock_timeout", "default_transaction_read_only", "idle_in_transaction_session_timeout",
	"idle_session_timeout", "lock_timeout", "log_lock_waits", "statement_timeout", "tcp_keepalives_idle", "track_activities", "transaction_timeout",
}

func (d *doctor) ask(ctx context.Context, conn *sql.Conn) (err error) {
	if d.audit, err = open(ctx, conn); err != nil {
		return err
	}
	before := time.Now()
	if d.server, err = d.audit.q.CheckServer(ctx); err != nil {
		return err
	}
	d.doubt = time.Since(before) / 2
	d.skew = at(d.server.At).Sub(before.Add(d.doubt))
	if d.fences, err = d.audit.q.CheckFences(ctx); err != nil {
		return err
	}
	settings, err := d.audit.q.CheckSettings(ctx, "{"+strings.Join(checkedSettings, ",")+"}")
	if err != nil {
		return err
	}
	for _, s := range settings {
		d.settings[s.Name] = s
	}
	d.roles, err = d.audit.q.CheckRoleSettings(ctx)
	return err
}

const (
	poolerWhy = "A lock belongs to a PostgreSQL session. A pooler in transaction or statement mode gives each statement to whatever session is free."
	poolerFix = "set pool_mode = session for this database in the pooler, or connect to PostgreSQL itself"
)

// pooler finds a pooler that gives a connection's statements to several
// sessions, or a session to several connections. It reports whether it did.
func (d *doctor) pooler(ctx context.Context, on *sql.DB, conn *sql.Conn) (bool, error) {
	conns := []*sql.Conn{conn}
	if on.Stats().MaxOpenConnections != 1 {
		second, err := on.Conn(ctx)
		if err != nil {
			return false, err
		}
		defer second.Close()
		conns = append(conns, second)
	}
	pids := make([]int, len(conns))
	for range 3 {
		for i, c := range conns {
			var pid int
			err := c.QueryRowContext(ctx, "SELECT pg_catalog.pg_backend_pid()").Scan(&pid)
			switch {
			case slices.Contains([]string{"26000", "42P05", "08P01"}, sqlstate.Of(err)):
				d.find("pooler", Failure, "a prepared statement met a session that does not know it", poolerWhy, poolerFix)
				return true, nil
			case err != nil:
				return false, err
			case pids[i] != 0 && pids[i] != pid:
				d.find("pooler", Failure, fmt.Sprintf("one connection was served by the processes %d and %d", pids[i], pid), poolerWhy, poolerFix)
				return true, nil
			}
			pids[i] = pid
		}
		if len(pids) == 2 && pids[0] == pids[1] {
			d.find("pooler", Failure, fmt.Sprintf("two connections share the process %d", pids[0]), poolerWhy, poolerFix)
			return true, nil
		}
	}
	d.find("pooler", OK, "each connection is a session of its own", poolerWhy, "")
	return false, nil
}

func (d *doctor) version() {
	const why = "Before 14 there is no idle_session_timeout: the TTL is kept by the holder alone, and a host that is cut off keeps its lock. 14 to 18 are tested."
	is := "PostgreSQL " + d.server.Version
	switch {
	case d.server.Pretends:
		d.find("version", Failure, "this server grants every advisory lock to everybody", "Two programs would hold one lock.", "connect to PostgreSQL itself")
	case d.server.VersionNum < 140000:
		d.find("version", Failure, is, why, "upgrade to PostgreSQL 14 or later")
	default:
		d.find("version", OK, is, why, "")
	}
}

func (d *doctor) standby() {
	const why = "A standby has a lock space of its own, in which nothing excludes the primary's holders; and nothing can be written there, as a fence and the audit must be."
	readOnly := d.settings["default_transaction_read_only"]
	switch {
	case d.server.Standby:
		d.find("primary", Failure, "this server is a standby", why, "connect to the primary (target_session_attrs=read-write)")
	case readOnly.Setting == "on":
		d.find("primary", Failure, "default_transaction_read_only is on", "A fence and a row of the audit are written.", d.set("default_transaction_read_only", "off", readOnly.Source))
	default:
		d.find("primary", OK, "this server is a primary, and can be written to", why, "")
	}
}

// room looks at what fills up.
func (d *doctor) room() {
	s := d.server
	const why = "The lock table is the whole server's. When it is full, no lock is granted and nobody can connect. A Pool stops at half of it."
	used := 100 * s.Locks / max(1, s.Capacity)
	is := fmt.Sprintf("%d of about %d locks are in use (%d %%)", s.Locks, s.Capacity, used)
	fix := fmt.Sprintf("ALTER SYSTEM SET max_locks_per_transaction = %d; then restart the server", max(256, 2*s.LocksPerTransaction))
	switch {
	case used >= 90:
		d.find("lock table", Failure, is, why, fix)
	case used >= 50:
		d.find("lock table", Warning, is, why, fix)
	default:
		d.find("lock table", OK, is, why, "")
	}
	const sessionsWhy = "A program that finds no connection free cannot lock, refresh or release."
	used = 100 * s.Sessions / max(1, s.MaxSessions)
	is = fmt.Sprintf("%d of %d sessions are in use (%d %%)", s.Sessions, s.MaxSessions, used)
	if used >= 90 {
		d.find("sessions", Warning, is, sessionsWhy, fmt.Sprintf("ALTER SYSTEM SET max_connections = %d; then restart the server", 2*s.MaxSessions))
	} else {
		d.find("sessions", OK, is, sessionsWhy, "")
	}
}

func (d *doctor) table() {
	const why = "With WithAudit a row says who held what and when; without the table such an acquire fails, and nothing is held."
	t := d.audit
	switch {
	case t.Schema == "":
		d.find("audit", Note, "there is no table lock_audit", "Locks need none. "+why, "swanlock migrate up")
	case !t.EndedBy || !t.SucceededAt || t.Indexes < allIndexes && t.Partitioned == 0:
		d.find("audit", Warning, fmt.Sprintf("%s.lock_audit is there, but not all of its migrations were applied: it has %d of %d indexes", t.Schema, t.Indexes, allIndexes),
			"Without its indexes the history is read row by row; without its last columns it says neither who killed a holder nor that swanlock run --once-every succeeded.", "swanlock migrate up")
	default:
		d.find("audit", OK, t.Schema+".lock_audit is there, and its migrations were applied", why, "")
	}
}

func (d *doctor) rights() {
	role := d.server.Role
	if t := d.audit; t.Schema != "" {
		const why = "An audited acquire inserts a row; refresh and release update it; the history selects."
		grant := func(rights string) string {
			return "GRANT " + rights + " ON " + t.Schema + ".lock_audit TO " + quoted(role)
		}
		switch {
		case !t.MayWrite || !t.MaySelect:
			d.find("rights: audit", Warning, "this role may not write and read the audit", why, grant("SELECT, INSERT, UPDATE"))
		case !t.MayDelete:
			d.find("rights: audit", Note, "this role may not delete from the audit", "swanlock audit prune deletes old rows.", grant("DELETE"))
		default:
			d.find("rights: audit", OK, "this role may write, read and prune the audit", why, "")
		}
		d.dropped()
	}
	const fencesWhy = "lock_fence reads and writes it. A role without these rights cannot write to a table that has the trigger lock_fenced."
	if f := d.fences; f.Schema != "" && !f.MayWrite {
		level := Note
		if f.Needed {
			level = Warning
		}
		d.find("rights: fences", level, "this role may not write and read "+f.Schema+".lock_fences", fencesWhy,
			"GRANT SELECT, INSERT, UPDATE ON "+f.Schema+".lock_fences TO "+quoted(role))
	}
	const endWhy = "swanlock kill ends a holder's session. A role may always end its own sessions, as locks need."
	if d.server.MayEnd && d.server.MaySee { // Kill must see when a session began.
		d.find("rights: kill", OK, "this role may end the sessions of other roles", endWhy, "")
	} else {
		d.find("rights: kill", Note, "this role may end its own sessions only", endWhy, "GRANT pg_signal_backend, pg_read_all_stats TO "+quoted(role))
	}
	const seeWhy = "swanlock ls shows application, client and state of the holders' sessions."
	switch {
	case d.settings["track_activities"].Setting == "off":
		d.find("rights: statistics", Note, "track_activities is off", seeWhy, d.set("track_activities", "on", d.settings["track_activities"].Source))
	case d.server.MaySee:
		d.find("rights: statistics", OK, "this role may see the sessions of other roles", seeWhy, "")
	default:
		d.find("rights: statistics", Note, "this role sees its own sessions only", seeWhy, "GRANT pg_read_all_stats TO "+quoted(role))
	}
}

// dropped looks at what may keep rows out of the audit, or open in it, without an
// error.
func (d *doctor) dropped() {
	t := d.audit
	const why = "Row security hides and drops rows without an error: an audited acquire fails whose row is dropped, and a row that may not be updated stays open."
	switch {
	case t.Policed && t.Policies < 3:
		d.find("row security: audit", Warning, "row security applies to this role, and it has no policy for some of SELECT, INSERT and UPDATE", why,
			"CREATE POLICY swanlock ON "+t.Schema+".lock_audit TO "+quoted(d.server.Role)+" USING (true)")
	case t.Policed:
		d.find("row security: audit", Note, "row security applies to this role, and has policies for it", why,
			"see that they let this role SELECT, INSERT and UPDATE every row")
	}
	if t.Triggers != "" {
		d.find("triggers: audit", Note, t.Schema+".lock_audit has triggers before a row is written: "+t.Triggers,
			"One that drops a row (RETURN NULL) makes an audited acquire fail, or leaves a row open that was released.", "see that they drop no row")
	}
}

func (d *doctor) clock() {
	const why = "No lock depends on it: TTLs are kept by durations. But the times of the audit are the server's, and those of your programs' logs are not."
	is := fmt.Sprintf("the server's clock is %v ahead of this host's", d.skew.Round(time.Millisecond))
	if d.skew < 0 {
		is = fmt.Sprintf("the server's clock is %v behind this host's", -d.skew.Round(time.Millisecond))
	}
	if d.skew.Abs() > time.Second+d.doubt {
		d.find("clock", Warning, is, why, "run an NTP client on both hosts (chronyc tracking tells how they do)")
	} else {
		d.find("clock", OK, fmt.Sprintf("the server's clock and this host's differ by %v (± %v)", d.skew.Abs().Round(time.Millisecond), d.doubt.Round(time.Millisecond)), why, "")
	}
	const offsetWhy = "It is added to each fence, for after a restore into a new cluster (docs/fences.md). While it is no number, fenced and audited acquires fail."
	if offset := d.server.FenceOffset; strings.Trim(offset, "0123456789") != "" || len(offset) > 18 {
		d.find("fence offset", Failure, fmt.Sprintf("swanlock.fence_offset is %.40q, which is no number of 18 digits at most", offset), offsetWhy,
			"ALTER DATABASE "+quoted(d.server.Database)+" SET swanlock.fence_offset = '0'")
	}
}

// quoted is a name as SQL has it.
func quoted(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }

// errNoUnit is that of a duration that no setting has.
var errNoUnit = errors.New("not a duration of PostgreSQL's")
