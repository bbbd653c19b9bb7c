package mocks

import (
	"database/sql/driver"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/swanlake-io/swanlock/db"
	"github.com/swanlake-io/swanlock/pglock"
)

// A verb is what pglock wants; for some it has several statements.
type verb string

const (
	tryAcquire verb = "TryAcquire"
	refresh    verb = "Refresh"
	probe      verb = "Probe" // a refresh that leaves the lease alone
	release    verb = "Release"
	undo       verb = "Undo"
	terminate  verb = "Terminate"
	auditLost  verb = "AuditLost"
	closeDead  verb = "CloseDead" // never sent: nobody dies here
	line       verb = "line"      // the tickets of waiters
	mark       verb = "Mark"      // before the first lock
	end        verb = "End"       // of the session, before the driver's Close
	lease      verb = "Lease"     // what became of the settings
)

// A shape says how to read a statement and what it returns. sqlc's Params have
// the arguments in their order, and its Rows the columns.
type shape struct {
	verb        verb
	params, row any
}

// shapes are by the name in the comment that sqlc leaves in a query.
var shapes = map[string]shape{
	"Mark":              {mark, db.MarkParams{}, db.MarkRow{}},
	"EndBackend":        {end, db.EndBackendParams{}, struct{ Ended bool }{}},
	"EndWhenIdle":       {end, struct{}{}, struct{ Lease string }{}},
	"TryAcquire":        {tryAcquire, db.TryAcquireParams{}, struct{ Pid int64 }{}},
	"TryAcquireWith":    {tryAcquire, db.TryAcquireWithParams{}, db.TryAcquireWithRow{}},
	"TryAcquireAudited": {tryAcquire, db.TryAcquireAuditedParams{}, db.TryAcquireAuditedRow{}},
	"Refresh":           {refresh, db.RefreshParams{}, db.RefreshRow{}},
	"RefreshAudited":    {refresh, db.RefreshAuditedParams{}, db.RefreshAuditedRow{}},
	"Release":           {release, db.ReleaseParams{}, struct{ Pid int64 }{}},
	"ReleaseWith":       {release, db.ReleaseWithParams{}, db.ReleaseWithRow{}},
	"ReleaseAudited":    {release, db.ReleaseAuditedParams{}, db.ReleaseAuditedRow{}},
	"Lease":             {lease, db.LeaseParams{}, db.LeaseRow{}},
	"Undo":              {undo, db.UndoParams{}, struct{ Undone bool }{}},
	"Terminate":         {terminate, db.TerminateParams{}, struct{ Terminated bool }{}},
	"Turn":              {tryAcquire, db.TurnParams{}, db.TurnRow{}},
	"OwnTicket":         {line, struct{ Hash int64 }{}, db.OwnTicketRow{}},
	"Ahead":             {line, db.AheadParams{}, db.AheadRow{}},
	"TakeTicket":        {line, db.TakeTicketParams{}, db.TakeTicketRow{}},
	"TakeNext":          {line, db.TakeNextParams{}, db.TakeNextRow{}},
	"DropTicket":        {line, db.DropTicketParams{}, db.DropTicketRow{}},
	"UndoTicket":        {line, db.UndoTicketParams{}, struct{ Tickets int64 }{}},
	"PrepareWait":       {line, db.PrepareWaitParams{}, db.PrepareWaitRow{}},
	"AuditReleased":     {auditLost, db.AuditReleasedParams{}, struct{}{}},
	"AuditLost":         {auditLost, struct{ AuditID int64 }{}, struct{}{}},
	"CloseDead":         {closeDead, struct{ Granted string }{}, struct{}{}},
}

// names are those of shapes, by the statement as it is sent.
var names = func() map[string]string {
	names := make(map[string]string)
	for _, query := range []string{
		db.Mark, db.TryAcquire, db.TryAcquireWith, db.TryAcquireAudited, db.Refresh, db.RefreshAudited, db.Release, db.ReleaseWith, db.ReleaseAudited, db.Undo, db.Terminate, db.Turn, db.OwnTicket, db.Ahead, db.TakeTicket, db.TakeNext, db.DropTicket, db.UndoTicket, db.PrepareWait, db.AuditLost, db.CloseDead, db.AuditReleased, db.Lease,
	} {
		names[db.OneLine(query)] = commentOf(query)
	}
	return names
}()

// nameOf is the name of one of pglock's statements, "" of any other.
func nameOf(query string) string {
	if name, ok := names[query]; ok {
		return name
	}
	name := commentOf(query)
	if _, known := shapes[name]; !known {
		return ""
	}
	return name
}

// commentOf is the name in the comment that sqlc leaves in a query.
func commentOf(query string) string {
	rest, ok := strings.CutPrefix(query, "-- name: ")
	if !ok {
		return ""
	}
	name, _, _ := strings.Cut(rest, " ")
	return name
}

// A question has the fields of all Params; those that a statement lacks are
// zero.
type question struct {
	name string
	verb verb
	has  map[string]bool // which of the fields, and of the row's, the statement has
	// mayProbe says that a refresh cannot be told from a probe.
	mayProbe bool

	Key               int64
	Shared, Fence     bool
	Target, Owner     string
	TtlMs, AuditID    int64
	Lease             string
	Idle              string
	IdleInTransaction string
	Pid               int32
	EndReason         string
	Granted           string

	Hash                  int64
	Ticket                int32
	Ahead, Lowest, Shares int32
	Line                  int64
	Hint                  int32
	Session, Instead      string
	Backend               int32
	Started               float64
	Own                   bool
	Mine                  bool
	Slice, Known          string

	SetIdle, SetIdleInTransaction string
	Xact                          int64
	Sure, Temporary               bool
	Marked, At                    int64
	Home, Gen                     string
}

func (q *question) key() pglock.Key { return pglock.Key(q.Key) }

func (q *question) audited() bool { return q.has["AuditID"] }

// read reads the statement of that name. An argument that it does not know of
// is a change of the SQL that this package has missed.
func read(name string, args []driver.NamedValue) (q *question, err error) {
	s := shapes[name]
	q = &question{name: name, verb: s.verb, has: make(map[string]bool)}
	row := reflect.TypeOf(s.row)
	for i := range row.NumField() {
		q.has[row.Field(i).Name] = true
	}
	params := reflect.TypeOf(s.params)
	if params.NumField() != len(args) {
		return nil, fmt.Errorf("mocks: %s has %d arguments, not %d", name, len(args), params.NumField())
	}
	for i, arg := range args {
		field := params.Field(i)
		to, from := reflect.ValueOf(q).Elem().FieldByName(field.Name), reflect.ValueOf(arg.Value)
		if !to.IsValid() || !from.IsValid() || !from.CanConvert(to.Type()) || (to.Kind() == reflect.String) != (from.Kind() == reflect.String) {
			return nil, fmt.Errorf("mocks: %s has an argument %s that is not known here: %v", name, field.Name, arg.Value)
		}
		to.Set(from.Convert(to.Type()))
		q.has[field.Name] = true
	}
	return q, nil
}

// An answer has the columns of all rows.
type answer struct {
	Pid               int32
	Answer, AuditID   int64
	Idle              string
	IdleInTransaction string
	Lease             string
	Held, Released    bool
	Undone            bool
	Terminated        bool
	Ticket            int32
	Ahead, Lowest     int32
	Dropped, Waits    bool
	Leased, Restored  bool
	Tickets           int64
	Started           int64
	Dead              bool
	Schema, Before    string
	Ended             bool
	Xact, DeadlockMs  int64
	Sets              bool
	Witness           string
	Temporary         bool
}

// row makes the row of the statement of that name.
func (a answer) row(name string) *oneRow {
	t := reflect.TypeOf(shapes[name].row)
	r := &oneRow{}
	for i := range t.NumField() {
		column := t.Field(i).Name
		r.columns = append(r.columns, column)
		switch v := reflect.ValueOf(a).FieldByName(column).Interface().(type) {
		case int32:
			r.values = append(r.values, int64(v))
		default:
			r.values = append(r.values, v)
		}
	}
	return r
}

// A oneRow is a driver.Rows of one row.
type oneRow struct {
	columns []string
	values  []driver.Value
	read    bool
}

func (r *oneRow) Columns() []string { return r.columns }

func (r *oneRow) Close() error { return nil }

func (r *oneRow) Next(dest []driver.Value) error {
	if r.read {
		return io.EOF
	}
	r.read = true
	copy(dest, r.values)
	return nil
}
