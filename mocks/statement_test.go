package mocks

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"io"
	"os"
	"reflect"
	"regexp"
	"testing"

	"github.com/swanlake-io/swanlock/db"
)

// A recorder keeps the last statement. It answers with no rows.
type recorder struct {
	query string
	args  []driver.NamedValue
}

func (r *recorder) Connect(context.Context) (driver.Conn, error) { return r, nil }
func (r *recorder) Driver() driver.Driver                        { return nil }
func (r *recorder) Prepare(string) (driver.Stmt, error)          { return nil, driver.ErrSkip }
func (r *recorder) Begin() (driver.Tx, error)                    { return nil, driver.ErrSkip }
func (r *recorder) Close() error                                 { return nil }
func (r *recorder) QueryContext(_ context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	r.query, r.args = query, args
	return nil, io.ErrUnexpectedEOF
}
func (r *recorder) ExecContext(_ context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	r.query, r.args = query, args
	return nil, io.ErrUnexpectedEOF
}

// What sqlc generates from the SQL, and what this package reads from it, must
// agree, argument by argument and column by column.
func TestStatementsAreRead(t *testing.T) {
	ctx, r := context.Background(), &recorder{}
	pool := sql.OpenDB(r)
	defer pool.Close()
	q := db.New(db.On(pool))
	try := question{Key: 1, Shared: true, Fence: true, Lease: "2", Target: "t", Owner: "o", TtlMs: 3, Session: "s", Instead: "i", Line: 9, Backend: 10, Started: 11,
		Sure: true, Marked: 12, Home: "h", Gen: "13"}
	lock := question{Key: 1, Shared: true, Idle: "4", IdleInTransaction: "5", AuditID: 6, Pid: 7, EndReason: "r", Granted: "{6}",
		SetIdle: "8", SetIdleInTransaction: "9", Temporary: true, Gen: "10", At: 11}
	wait := question{Key: 1, Shared: true, Hash: 2, Hint: 8, Own: true, Ticket: 3, Ahead: 4, Lowest: 9, Shares: 10, Mine: true, Slice: "5", Known: "{6}", Pid: 7, SetIdle: "11", SetIdleInTransaction: "12", Xact: 13}
	seen := make(map[string]bool)
	for name, send := range map[string]func(){
		"Mark":              func() { q.Mark(ctx, fill[db.MarkParams](try)) },
		"EndWhenIdle":       func() { q.EndWhenIdle(ctx) },
		"EndBackend":        func() { q.EndBackend(ctx, db.EndBackendParams{Pid: lock.Pid, Started: int64(lock.Started)}) },
		"TryAcquire":        func() { q.TryAcquire(ctx, fill[db.TryAcquireParams](try)) },
		"TryAcquireWith":    func() { q.TryAcquireWith(ctx, fill[db.TryAcquireWithParams](try)) },
		"TryAcquireAudited": func() { q.TryAcquireAudited(ctx, fill[db.TryAcquireAuditedParams](try)) },
		"Refresh":           func() { q.Refresh(ctx, fill[db.RefreshParams](lock)) },
		"RefreshAudited":    func() { q.RefreshAudited(ctx, fill[db.RefreshAuditedParams](lock)) },
		"Release":           func() { q.Release(ctx, fill[db.ReleaseParams](lock)) },
		"ReleaseWith":       func() { q.ReleaseWith(ctx, fill[db.ReleaseWithParams](lock)) },
		"ReleaseAudited":    func() { q.ReleaseAudited(ctx, fill[db.ReleaseAuditedParams](lock)) },
		"Lease":             func() { q.Lease(ctx, fill[db.LeaseParams](lock)) },
		"AuditReleased":     func() { q.AuditReleased(ctx, fill[db.AuditReleasedParams](lock)) },
		"Undo":              func() { q.Undo(ctx, fill[db.UndoParams](lock)) },
		"Terminate":         func() { q.Terminate(ctx, fill[db.TerminateParams](lock)) },
		"Turn":              func() { q.Turn(ctx, fill[db.TurnParams](wait)) },
		"OwnTicket":         func() { q.OwnTicket(ctx, wait.Hash) },
		"Ahead":             func() { q.Ahead(ctx, fill[db.AheadParams](wait)) },
		"TakeTicket":        func() { q.TakeTicket(ctx, fill[db.TakeTicketParams](wait)) },
		"TakeNext":          func() { q.TakeNext(ctx, fill[db.TakeNextParams](wait)) },
		"DropTicket":        func() { q.DropTicket(ctx, fill[db.DropTicketParams](wait)) },
		"UndoTicket":        func() { q.UndoTicket(ctx, fill[db.UndoTicketParams](wait)) },
		"PrepareWait":       func() { q.PrepareWait(ctx, fill[db.PrepareWaitParams](wait)) },
		"AuditLost":         func() { q.AuditLost(ctx, lock.AuditID) },
		"CloseDead":         func() { q.CloseDead(ctx, lock.Granted) },
	} {
		seen[name] = true
		send()
		if got := nameOf(r.query); got != name {
			t.Errorf("nameOf(%.30q) is %q, want %q", r.query, got, name)
			continue
		}
		got, err := read(name, r.args)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := lock
		switch {
		case name == "Turn" || shapes[name].verb == line:
			want = wait
		case shapes[name].verb == tryAcquire || shapes[name].verb == mark:
			want = try
		}
		for i := range reflect.TypeOf(shapes[name].params).NumField() {
			field := reflect.TypeOf(shapes[name].params).Field(i).Name
			g, w := reflect.ValueOf(*got).FieldByName(field).Interface(), reflect.ValueOf(want).FieldByName(field).Interface()
			if g != w {
				t.Errorf("%s: %s is %v, want %v", name, field, g, w)
			}
		}
	}
	for name := range shapes {
		if !seen[name] {
			t.Errorf("%s is not tested here", name)
		}
	}
}

// fill makes the Params of a statement from a question.
func fill[P any](from question) (params P) {
	to, q := reflect.ValueOf(&params).Elem(), reflect.ValueOf(from)
	for i := range to.NumField() {
		to.Field(i).Set(q.FieldByName(to.Type().Field(i).Name).Convert(to.Field(i).Type()))
	}
	return params
}

// A statement of a lock's life that this package does not know would reach
// go-sqlmock, and a user's test would need its SQL.
func TestStatementsAreKnown(t *testing.T) {
	for _, file := range []string{"../queries/advisory.sql", "../queries/audit.sql", "../queries/line.sql"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^-- name: (\w+)`).FindAllSubmatch(text, -1) {
			if _, ok := shapes[string(m[1])]; !ok {
				t.Errorf("%s has a statement %s that shapes lacks", file, m[1])
			}
		}
	}
}

func TestUnknownArguments(t *testing.T) {
	if _, err := read("Undo", []driver.NamedValue{{Value: int64(1)}}); err == nil {
		t.Error("an argument is missing, and no error")
	}
	if _, err := read("Undo", []driver.NamedValue{{Value: int64(1)}, {Value: "x"}}); err == nil {
		t.Error("a text for a boolean, and no error")
	}
	if _, err := read("RefreshAudited", []driver.NamedValue{{Value: int64(1)}, {Value: "1"}, {Value: int64(1)}, {Value: true}, {Value: int64(1)}}); err == nil {
		t.Error("a number for a text, and no error")
	}
}
