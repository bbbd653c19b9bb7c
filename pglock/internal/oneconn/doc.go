// Package oneconn is the use of one *sql.Conn by several callers: who may use it
// now, how a statement gets to its driver, how long that may take, and how its
// session is ended. It knows database/sql and its drivers, and nothing of locks.
package oneconn
