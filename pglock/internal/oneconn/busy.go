package oneconn

import (
	"database/sql/driver"
	"reflect"
	"strings"
	"sync/atomic"
)

// A statement that is sent while the owner's Rows are open does more harm than
// an error: pgx loses the rest of the rows, and lib/pq takes them for the
// answer to its Prepare. So the driver is asked first whether rows are open.

// rowsOpen returns a function that reports whether rows are being read from on.
// For a driver that is not known, or that is hidden in a wrapper, the function
// always returns false.
func rowsOpen(on driver.Conn) func() bool {
	if busy, ok := pgConn(on).(interface{ IsBusy() bool }); ok {
		return busy.IsBusy
	}
	// lib/pq has no method that tells.
	if field := pqField(on, "inProgress"); field.IsValid() && field.Type() == reflect.TypeFor[atomic.Bool]() {
		return reflect.NewAt(field.Type(), field.Addr().UnsafePointer()).Interface().(*atomic.Bool).Load
	}
	return func() bool { return false }
}

// statusOf returns a function that returns the transaction status that the server has
// told the driver of on last. It returns nil for a driver that is not known.
func statusOf(on driver.Conn) func() byte {
	if c, ok := pgConn(on).(interface{ TxStatus() byte }); ok {
		return c.TxStatus
	}
	if field := pqField(on, "txnStatus"); field.IsValid() && field.Kind() == reflect.Uint8 {
		status := (*byte)(field.Addr().UnsafePointer())
		return func() byte { return *status }
	}
	return nil
}

// pgConn returns pgx's *pgconn.PgConn below on, or nil.
func pgConn(on driver.Conn) any {
	if packageOf(on) != "github.com/jackc/pgx/v5/stdlib" {
		return nil
	}
	return call(call(innermost(on), "Conn"), "PgConn")
}

// pqField returns a field of lib/pq's connection below on, or the zero Value.
func pqField(on driver.Conn, name string) (field reflect.Value) {
	if v := innermost(on); fromPq(on) && v.Kind() == reflect.Pointer && v.Elem().Kind() == reflect.Struct {
		field = v.Elem().FieldByName(name)
	}
	return field
}

// call calls a method without arguments, which imports no driver.
func call(on any, method string) any {
	v, ok := on.(reflect.Value)
	if !ok {
		v = reflect.ValueOf(on)
	}
	if !v.IsValid() {
		return nil
	}
	var m reflect.Value
	switch method { // constants, so that the linker knows which methods are meant
	case "Conn":
		m = v.MethodByName("Conn")
	case "PgConn":
		m = v.MethodByName("PgConn")
	}
	if !m.IsValid() || m.Type().NumIn() != 0 || m.Type().NumOut() != 1 {
		return nil
	}
	return m.Call(nil)[0].Interface()
}

// innermost returns the driver's own connection, without the wrappers around
// it.
func innermost(on driver.Conn) reflect.Value {
	v := reflect.ValueOf(on)
	for range maxWrappers {
		next := inside(v)
		if !next.IsValid() {
			break
		}
		v = next
	}
	if v.Kind() == reflect.Pointer { // from a field that is not exported, perhaps
		v = reflect.NewAt(v.Type().Elem(), v.UnsafePointer())
	}
	return v
}

// saysBusy reports whether err says that rows are open on its connection.
func saysBusy(err error) bool {
	return strings.HasSuffix(err.Error(), "conn busy") || strings.HasSuffix(err.Error(), "there is already a query being processed on this connection")
}
