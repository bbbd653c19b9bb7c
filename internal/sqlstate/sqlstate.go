// Package sqlstate reads the code of a server's error, whichever driver it comes
// from: the errors of lib/pq and of pgx have the same method.
package sqlstate

import "errors"

// Of returns the SQLSTATE of err, or "" if err is not an error of the server.
// https://www.postgresql.org/docs/current/errcodes-appendix.html
func Of(err error) string {
	if err == nil {
		return ""
	}
	var coded interface{ SQLState() string }
	if errors.As(err, &coded) {
		return coded.SQLState()
	}
	return ""
}
