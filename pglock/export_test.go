package pglock

import (
	"context"
	"database/sql"
	"reflect"
	"weak"

	"github.com/swanlake-io/swanlock"
)

// LedgerID is what the ledger of conn's session is found by. It does not keep
// the session alive.
func LedgerID(conn *sql.Conn) (id weak.Pointer[byte]) {
	conn.Raw(func(driverConn any) error {
		id = weak.Make((*byte)(reflect.ValueOf(driverConn).UnsafePointer()))
		return nil
	})
	return id
}

// HasLedger says whether there is one.
func HasLedger(id weak.Pointer[byte]) bool {
	_, ok := ledgers.Load(id)
	return ok
}

// Sabotage unlocks held on its own session, behind the pool's back.
func Sabotage(held swanlock.DistributedLock) error {
	h := held.(*PostgresLock).h
	_, err := h.w.conn.ExecContext(context.Background(), "SELECT pg_advisory_unlock($1)", int64(h.id.key))
	return err
}

// TicketSpace is where the tickets of the target's line are.
func TicketSpace(target string) int32 { return KeyOf(target).hash() }
