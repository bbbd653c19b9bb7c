// Package rawconn uses the driver's connection of a *sql.Conn that may be closed
// meanwhile.
package rawconn

import "database/sql"

// Raw is conn.Raw, which panics when conn is closed at the same moment: it finds
// conn open, waits for the Close to end, and then uses the connection that Close
// gave back (grabConn in database/sql/sql.go of Go 1.26). The error is
// sql.ErrConnDone then, as it is after a Close. Fact 54.
func Raw(conn *sql.Conn, f func(driverConn any) error) (err error) {
	begun := false
	defer func() {
		if !begun && recover() != nil {
			err = sql.ErrConnDone
		}
	}()
	return conn.Raw(func(driverConn any) error {
		begun = true // A panic from here on is f's own.
		return f(driverConn)
	})
}
