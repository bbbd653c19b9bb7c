package pglock

import (
	"database/sql"
	"reflect"
	"weak"
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
