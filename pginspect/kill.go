package pginspect

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

var (
	// ErrNoSession is the error of Kill if the session is not there any more, or
	// has no advisory lock and waits for none. Nothing was done.
	ErrNoSession = errors.New("there is no such session with an advisory lock")
	// ErrNotAllowed is the error of Kill if this role may not end the session, or
	// may not see when it began, so that a later one with the same process id
	// would be taken for it. Nothing was done.
	ErrNotAllowed = errors.New("this role may not end that session: GRANT pg_signal_backend and pg_read_all_stats TO it, or ask as a superuser")
	// ErrStillThere is the error of Kill if the session was told to end and has
	// not ended: its process is in something that cannot be interrupted. It may
	// end later. Its rows are open, and say who asked.
	ErrStillThere = errors.New("the session was told to end, and has not ended yet")
)

// A Killed says what Kill did.
type Killed struct {
	Rows int `json:"rows"` // of the audit, with end_reason killed and by whom
}

// killPatience is how long Kill waits for the session to end.
const killPatience = 10 * time.Second

// Kill ends a session, that of a Lock or Waiter, and with it every lock and
// every place in line that it has. Only the session that was seen is ended, not
// a later one with the same process id. The holder learns of it as of any loss.
// The rows of its locks get the end reason "killed", and by, which says who did
// it; a lock that its holder released just before keeps "released". It returns
// when the locks are free.
//
// It needs no audit, and without the right to write it, or where transactions are
// read-only, it writes nothing. on must not be in a transaction, in which the
// holder would have to wait.
func Kill(ctx context.Context, on DB, s Session, by string) (Killed, error) {
	if err := checkText("name of who ends the session", by); err != nil {
		return Killed{}, err
	}
	t, err := open(ctx, on)
	if err != nil {
		return Killed{}, err
	}
	if s.Started.IsZero() { // A later session with the same process id would be taken for it.
		return Killed{}, ErrNotAllowed
	}
	started := s.Started.UnixMicro()
	var ids []int64
	if t.EndedBy && t.MaySelect && t.MayWrite {
		if ids, err = t.q.KillRows(ctx, db.KillRowsParams{Pid: int32(s.PID), Started: started}); err == nil && len(ids) > 0 {
			err = t.q.KillMark(ctx, db.KillMarkParams{By: by, Ids: array(ids)})
		}
		if sqlstate.Of(err) == "25006" { // read_only_sql_transaction
			ids, err = nil, nil
		}
		if err != nil {
			return Killed{}, explain("write who ends the session", err)
		}
	}
	row, err := t.q.KillBackend(ctx, db.KillBackendParams{Pid: int32(s.PID), Started: started})
	// From here on the rows must be true, whatever becomes of the caller.
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), killPatience)
	defer cancel()
	if err != nil || !row.Ended {
		switch {
		case err == nil:
			err = ErrNoSession
		case sqlstate.Of(err) == "42501":
			err = fmt.Errorf("%w (%w)", ErrNotAllowed, err)
		}
		if len(ids) > 0 {
			err = errors.Join(err, t.q.KillUnmark(rest, array(ids)))
		}
		return Killed{}, explain(fmt.Sprintf("end session %d", s.PID), err)
	}
	for {
		there, err := t.q.InspectBackend(rest, db.InspectBackendParams{Pid: int32(s.PID), Started: started})
		if err != nil {
			if rest.Err() != nil {
				err = ErrStillThere
			}
			return Killed{}, explain(fmt.Sprintf("end session %d", s.PID), err)
		}
		if !there {
			break
		}
		if pause(rest, 5*time.Millisecond) != nil {
			return Killed{}, explain(fmt.Sprintf("end session %d", s.PID), ErrStillThere)
		}
	}
	if len(ids) == 0 {
		return Killed{}, nil
	}
	n, err := t.q.KillClose(rest, db.KillCloseParams{At: row.At, By: by, Ids: array(ids)})
	return Killed{int(n)}, explain("close the rows of the session", err)
}

// array is PostgreSQL's text of an array of numbers.
func array(ids []int64) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = strconv.FormatInt(id, 10)
	}
	return "{" + strings.Join(texts, ",") + "}"
}
