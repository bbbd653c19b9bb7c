package verify

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

// A database is where a run happens: a schema of its own in the database that
// the DSN names, which is dropped at the end. No other table is touched, and no
// backend ended that is not a worker's.
type database struct {
	dsn    string // with the search_path
	run    string // begins every application_name
	schema string
	db     *sql.DB // for the faults, the observer and the reckoning
	host   string
	port   uint16
	hosts  int
}

const schemaSQL = `
CREATE TABLE register (target int PRIMARY KEY, fence bigint NOT NULL, value text NOT NULL, prev text NOT NULL);
CREATE TABLE register_log (id text PRIMARY KEY, met text NOT NULL);
`

const guardSQL = "CREATE TRIGGER fenced BEFORE UPDATE ON register FOR EACH ROW EXECUTE FUNCTION lock_fenced()"

// openDatabase makes the schema. dsn is key=value, as pglock.DSNFromEnv has it;
// migrationsSQL makes the table lock_audit and the fence guard.
func openDatabase(ctx context.Context, dsn, name, migrationsSQL string, targets int) (_ *database, err error) {
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, errors.New("the connection string cannot be read")
	}
	d := &database{run: "swv-" + name + ".", schema: "swanlock_verify_" + name, host: cfg.Host, port: cfg.Port}
	d.hosts = 1
	for _, f := range cfg.Fallbacks {
		if f.Host != cfg.Host || f.Port != cfg.Port {
			d.hosts++
		}
	}
	d.dsn = dsn + " search_path='" + d.schema + "'"
	if d.db, err = openDB("pgx", d.dsn, "", d.run+"main"); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			d.db.Close()
		}
	}()
	pctx, cancel := context.WithTimeoutCause(ctx, 10*time.Second, errors.New("no answer within 10 s"))
	defer cancel()
	if _, err := d.db.ExecContext(pctx, "CREATE SCHEMA "+d.schema); err != nil {
		return nil, fmt.Errorf("cannot create the schema %s, in which all that verify writes will be: %w", d.schema, err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.drop())
		}
	}()
	if _, err := d.db.ExecContext(ctx, schemaSQL+migrationsSQL); err != nil {
		return nil, err
	}
	if _, err := d.db.ExecContext(ctx, "INSERT INTO register SELECT i, 0, '', '' FROM generate_series(0, $1::int - 1) i", targets); err != nil {
		return nil, err
	}
	_, err = d.db.ExecContext(ctx, guardSQL)
	return d, err
}

func (d *database) drop() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	_, err := d.db.ExecContext(ctx, "DROP SCHEMA "+d.schema+" CASCADE")
	if err != nil {
		return fmt.Errorf("drop schema %s yourself: %w", d.schema, err)
	}
	return nil
}

// A backend is a server process behind a lock's session.
type backend struct {
	pid, port int
	label     string
	holds     bool
}

// backends are those of the workers' locks.
func (d *database) backends(ctx context.Context) (all []backend, err error) {
	rows, err := d.db.QueryContext(ctx, `
		SELECT a.pid, COALESCE(a.client_port, -1), substr(a.application_name, length($1) + 1),
			EXISTS (SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.locktype = 'advisory' AND l.granted)
		FROM pg_stat_activity a
		WHERE starts_with(a.application_name, $1 || 'w') AND a.datname = current_database()`, d.run)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var b backend
		if err := rows.Scan(&b.pid, &b.port, &b.label, &b.holds); err != nil {
			return nil, err
		}
		all = append(all, b)
	}
	return all, rows.Err()
}

// terminate ends a backend, if it is still the one that it was.
func (d *database) terminate(ctx context.Context, b backend) (ended bool, err error) {
	err = d.db.QueryRowContext(ctx, `
		SELECT COALESCE(bool_or(pg_terminate_backend(pid)), false) FROM pg_stat_activity
		WHERE pid = $1 AND application_name = $2`, b.pid, d.run+b.label).Scan(&ended)
	return ended, err
}

// audit is what lock_audit says.
func (d *database) audit(ctx context.Context, hist *History) error {
	byKey := make(map[int64]int)
	for i, t := range hist.Targets {
		byKey[t.Key] = i
	}
	rows, err := d.db.QueryContext(ctx, `
		SELECT id, key, owner, mode = 'shared', COALESCE(fence, 0), ttl_ms, backend_pid, COALESCE(end_reason, ''),
			(extract(epoch FROM acquired_at) * 1000000)::bigint, COALESCE((extract(epoch FROM released_at) * 1000000)::bigint, 0)
		FROM lock_audit WHERE NOT starts_with(owner, $1) ORDER BY acquired_at, id`, bystanderOwner)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r AuditRow
		var key, ttl int64
		if err := rows.Scan(&r.ID, &key, &r.Owner, &r.Shared, &r.Fence, &ttl, &r.BackendPid, &r.Reason, &r.Acquired, &r.Released); err != nil {
			return err
		}
		target, ok := byKey[key]
		if !ok {
			target = -1
		}
		r.Target, r.TTL = target, time.Duration(ttl)*time.Millisecond
		r.Acquired, r.Released = r.Acquired*1000, r.Released*1000
		hist.Audit = append(hist.Audit, r)
	}
	return rows.Err()
}

// log is what the register accepted.
func (d *database) log(ctx context.Context, hist *History) error {
	hist.Log = make(map[string]string)
	rows, err := d.db.QueryContext(ctx, "SELECT id, met FROM register_log")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, met string
		if err := rows.Scan(&id, &met); err != nil {
			return err
		}
		hist.Log[id] = met
	}
	return rows.Err()
}
