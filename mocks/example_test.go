package mocks_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/DATA-DOG/go-sqlmock"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/mocks"
	"github.com/swanlake-io/swanlock/pglock"
)

// Reporter is a service that takes any Locker.
type Reporter struct{ Locker swanlock.Locker }

func (r Reporter) Run(ctx context.Context, work func(ctx context.Context) error) string {
	err := swanlock.Do(ctx, r.Locker, "report", func(ctx context.Context, held swanlock.DistributedLock) error {
		if err := work(ctx); err != nil {
			return err
		}
		return held.Refresh(ctx)
	}, swanlock.WithTTL(time.Minute))
	switch {
	case errors.Is(err, swanlock.ErrLost):
		return "stopped: somebody else may run now"
	case err != nil:
		return "failed"
	}
	return "done"
}

// One service, tested with a mock of the contract and with pglock on a scripted
// PostgreSQL.
func Example() {
	ctx := context.Background()
	t := new(exampleT) // a test has its *testing.T
	defer t.end()
	work := func(context.Context) error { return nil }

	// A zero Locker grants what it is asked for, and remembers it.
	locker := &mocks.Locker{}
	fmt.Println(Reporter{locker}.Run(ctx, work))
	call := locker.Calls()[0]
	fmt.Println(call.Method, call.Target, call.Options.TTL)

	// A lock can be lost at any moment.
	lock := &mocks.DistributedLock{}
	locker.AcquireFunc = func(context.Context, string, ...swanlock.Option) (swanlock.DistributedLock, error) {
		return lock, nil
	}
	fmt.Println(Reporter{locker}.Run(ctx, func(ctx context.Context) error {
		lock.Lose(errors.New("the network is down"))
		<-ctx.Done() // Do ends it
		return context.Cause(ctx)
	}))

	// The same with what PostgreSQL says.
	conn, pg := mocks.NewConn(t)
	session := pglock.NewSession(conn)
	pg.ExpectTryAcquire("report").WithTTL(time.Minute).HeldElsewhere() // Acquire waits
	pg.ExpectTryAcquire("report").Granted()
	pg.ExpectRefresh("report")
	pg.ExpectRelease("report")
	fmt.Println(Reporter{session}.Run(ctx, work))

	pg.ExpectTryAcquire("report").Granted()
	pg.ExpectRefresh("report").Lost()
	fmt.Println(Reporter{session}.Run(ctx, work))
	// Output:
	// done
	// Acquire report 1m0s
	// stopped: somebody else may run now
	// done
	// stopped: somebody else may run now
}

// Bill is a service that locks on a connection of its own.
func Bill(ctx context.Context, conn *sql.Conn) (string, error) {
	lock, err := pglock.TryAcquire(ctx, conn, "billing", swanlock.WithTTL(time.Minute))
	if errors.Is(err, swanlock.ErrNotAcquired) {
		return "somebody else is at it", nil
	}
	if err != nil {
		return "", err
	}
	defer lock.Release(ctx)
	if _, err := conn.ExecContext(ctx, "UPDATE invoices SET sent = true"); err != nil {
		return "", err
	}
	if err := lock.Refresh(ctx); err != nil {
		return "stopped", err
	}
	return "sent", nil
}

// Code that calls pglock is tested with a scripted PostgreSQL.
func ExampleNewConn() {
	t := new(exampleT) // a test has its *testing.T
	defer t.end()

	conn, pg := mocks.NewConn(t)
	pg.ExpectTryAcquire("billing").WithTTL(time.Minute).Granted()
	pg.ExpectExec("UPDATE invoices").WillReturnResult(sqlmock.NewResult(0, 3))
	pg.ExpectRefresh("billing")
	pg.ExpectRelease("billing")
	fmt.Println(Bill(context.Background(), conn))

	pg.ExpectTryAcquire("billing").HeldElsewhere()
	fmt.Println(Bill(context.Background(), conn))

	pg.ExpectTryAcquire("billing").Fails(mocks.SQLState("53200"))
	_, err := Bill(context.Background(), conn)
	fmt.Println(errors.Is(err, pglock.ErrLockTableFull))

	pg.ExpectTryAcquire("billing").Granted()
	pg.ExpectExec("UPDATE invoices").WillReturnResult(sqlmock.NewResult(0, 3))
	pg.ExpectRefresh("billing").Lost()
	what, err := Bill(context.Background(), conn)
	fmt.Println(what, errors.Is(err, swanlock.ErrLost))
	// Output:
	// sent <nil>
	// somebody else is at it <nil>
	// true
	// stopped true
}

// exampleT is a *testing.T for an example, which has none.
type exampleT struct {
	testing.TB
	cleanups []func()
}

func (t *exampleT) Helper()                           {}
func (t *exampleT) Cleanup(f func())                  { t.cleanups = append(t.cleanups, f) }
func (t *exampleT) Errorf(format string, args ...any) { fmt.Printf(format+"\n", args...) }
func (t *exampleT) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
func (t *exampleT) end() {
	for _, f := range t.cleanups {
		f()
	}
}
