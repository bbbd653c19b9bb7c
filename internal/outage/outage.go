// Package outage tells a server that cannot be used for a while from one that
// will give the same error again.
package outage

import (
	"database/sql/driver"
	"errors"
	"io"
	"net"
	"strings"
	"syscall"

	"github.com/swanlake-io/swanlock/internal/sqlstate"
)

// Is reports whether err says that the server does not answer, or is starting,
// stopping or full, so that a later attempt may succeed. It is no outage if the
// server refuses the user or does not know the database, if the name of the
// host is not known, or if a certificate is wrong.
func Is(err error) bool {
	if state := sqlstate.Of(err); state != "" {
		return isState(state, err.Error())
	}
	var name *net.DNSError
	if errors.As(err, &name) && name.IsNotFound {
		return false
	}
	for _, end := range []error{driver.ErrBadConn, io.EOF, io.ErrUnexpectedEOF, net.ErrClosed} {
		if errors.Is(err, end) {
			return true
		}
	}
	var op *net.OpError
	if errors.As(err, &op) && strings.HasSuffix(op.Op, " error") { // an alert of TLS
		return false
	}
	var network net.Error // includes a context's deadline
	var system syscall.Errno
	return errors.As(err, &network) || errors.As(err, &system)
}

// IsUnknownHost reports whether err says that the name of the host is not known,
// as that of a container that is being restarted.
func IsUnknownHost(err error) bool {
	var name *net.DNSError
	return errors.As(err, &name)
}

// isState reports whether an SQLSTATE of the server says that there is an
// outage: those that concern the connection do, and the one that says that no
// connection is left. 57P04 says that the database was dropped. PgBouncer has
// one code for all its errors, a wrong password included.
func isState(code, message string) bool {
	const tooManyConnections, databaseDropped, pgBouncer = "53300", "57P04", "08P01"
	switch code {
	case tooManyConnections:
		return true
	case databaseDropped:
		return false
	case pgBouncer:
		for _, of := range []string{"query_wait_timeout", "max_client_conn", "server login", "shutting down", "shut down", "cannot connect to server", "connect failed", "server conn crashed"} {
			if strings.Contains(message, of) {
				return true
			}
		}
		return false
	}
	return strings.HasPrefix(code, "08") || strings.HasPrefix(code, "57P")
}
