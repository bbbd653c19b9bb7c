package pglock_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// TestAuditEncoding: in a database that is not in UTF8 an audited name is
// stored as it is, or refused with an error that says what to do, and nothing
// is held. Locks without the audit work as ever.
func TestAuditEncoding(t *testing.T) {
	eachDriver(t, func(t *testing.T, driver string) {
		for _, encoding := range []string{"LATIN1", "SQL_ASCII", "UTF8"} {
			name := fmt.Sprintf("encoded_%d", rand.Uint64())
			admin := openDB(t, "postgres")
			run(t, admin, "CREATE DATABASE "+name+" ENCODING '"+encoding+"' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
			t.Cleanup(func() { run(t, admin, "DROP DATABASE "+name+" WITH (FORCE)") })
			o := observe(t, "dbname="+name) // lib/pq: its client_encoding is UTF8
			_, err := provider(o.db).Up(bg)
			must(t, err)
			for _, params := range [][]string{{"dbname=" + name}, {"dbname=" + name, "client_encoding=UTF8"}} {
				utf8 := len(params) == 2 || !strings.HasPrefix(driver, "pgx")
				conn := dial(t, driver, params...)
				plain, s := pglock.NewSession(conn), pglock.NewSession(conn, pglock.WithAudit())
				for _, text := range []string{"ascii", "ä", "漢"} {
					for _, names := range [][2]string{{t.Name() + text, "owner"}, {t.Name(), text}} {
						target, owner := names[0]+fmt.Sprint(rand.Uint64()), names[1]
						must(t, acquired(t, plain, target).Release(bg))
						must(t, acquired(t, plain, target, swanlock.WithOwner(owner), swanlock.WithFence()).Release(bg))
						held, err := s.TryAcquire(bg, target, swanlock.WithOwner(owner))
						stored := text == "ascii" || encoding != "LATIN1" || utf8 && text == "ä"
						if !stored {
							wantIs(t, err, pglock.ErrAudit)
							if !strings.Contains(err.Error(), "client_encoding=UTF8") && !strings.Contains(err.Error(), "database in UTF8") {
								t.Errorf("%v does not say what to do", err)
							}
							o.wantHeld(target)
							must(t, acquired(t, plain, target).Release(bg))
							continue
						}
						if err != nil {
							t.Errorf("%s, %v, %q: %v", encoding, params, text, err)
							continue
						}
						must(t, held.Refresh(bg))
						must(t, held.Release(bg))
						rows := o.rows(target)
						if len(rows) != 1 || rows[0].target != target || rows[0].owner != owner || rows[0].reason != "released" {
							t.Errorf("%s, %v: the audit has %+v, want %q and %q", encoding, params, rows, target, owner)
						}
					}
				}
			}
		}
	})
}
