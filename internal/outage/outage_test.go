package outage_test

import (
	"context"
	"crypto/x509"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"

	"github.com/swanlake-io/swanlock/internal/outage"
)

type coded string

func (c coded) Error() string    { return "the server says " + string(c) }
func (c coded) SQLState() string { return string(c[:5]) }

// TestIs: what ends by itself is an outage, and what somebody has to mend is not.
func TestIs(t *testing.T) {
	for err, want := range map[error]bool{
		&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}: true,
		syscall.ECONNRESET: true,
		&net.DNSError{Err: "no such host", IsNotFound: true}:      false,
		&net.DNSError{Err: "server misbehaving", IsTimeout: true}: true,
		driver.ErrBadConn:                         true,
		io.EOF:                                    true,
		io.ErrUnexpectedEOF:                       true,
		net.ErrClosed:                             true,
		context.DeadlineExceeded:                  true,
		context.Canceled:                          false,
		coded("08P01 query_wait_timeout"):         true,
		coded("08P01 SASL authentication failed"): false,
		&net.OpError{Op: "remote error", Err: errors.New("tls: bad certificate")}: false,
		coded("08006"):               true,
		coded("53300"):               true,
		coded("57P01"):               true,
		coded("57P03"):               true,
		coded("57P04"):               false,
		coded("57014"):               false,
		coded("53200"):               false,
		coded("28P01"):               false,
		coded("28000"):               false,
		coded("3D000"):               false,
		coded("42501"):               false,
		x509.UnknownAuthorityError{}: false,
		errors.New("something else"): false,
	} {
		if got := outage.Is(fmt.Errorf("connect: %w", err)); got != want {
			t.Errorf("%v: got %t, want %t", err, got, want)
		}
	}
	if outage.Is(nil) {
		t.Error("nil is an outage")
	}
}
