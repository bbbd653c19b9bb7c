// Package oneconn lets several callers use one *sql.Conn. It gives them turns,
// sends their statements to the driver, bounds how long that takes, and ends
// the session. It knows database/sql and its drivers, and nothing of locks.
package oneconn
