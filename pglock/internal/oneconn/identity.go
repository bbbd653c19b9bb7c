package oneconn

import (
	"database/sql"
	"database/sql/driver"
	"reflect"
	"time"

	"github.com/swanlake-io/swanlock/internal/rawconn"
)

// Programs wrap their driver to log, trace or count what it does. The
// connections of a wrapper may be struct values, which have no identity, and
// they hide the connection of the driver inside.

var connType = reflect.TypeFor[driver.Conn]()

// maxWrappers is how many wrappers are looked through.
const maxWrappers = 8

// inside returns the driver's connection that the wrapper v keeps in one of its
// fields, or the zero Value. It calls no method of v.
func inside(v reflect.Value) reflect.Value {
	if v.Kind() == reflect.Pointer {
		v = v.Elem()
	}
	if v.Kind() != reflect.Struct {
		return reflect.Value{}
	}
	for i := range v.NumField() {
		field := v.Field(i)
		switch {
		case field.Kind() == reflect.Interface:
			field = field.Elem()
		case field.Kind() == reflect.Struct && v.Type().Field(i).Anonymous:
			if found := inside(field); found.IsValid() {
				return found
			}
			continue
		case field.Kind() != reflect.Pointer:
			continue
		}
		if field.IsValid() && field.Type().Implements(connType) && !(field.Kind() == reflect.Pointer && field.IsNil()) {
			return field
		}
	}
	return reflect.Value{}
}

// packageOf returns the import path of the driver of on, which may be in a
// wrapper.
func packageOf(on driver.Conn) string {
	t := innermost(on).Type()
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	return t.PkgPath()
}

// identity returns a pointer that identifies the driver's connection behind
// conn: the connection itself or, if that is a value, the first pointer inside.
// If there is none, it is conn, which has the connection to itself while it is
// open.
func identity(conn *sql.Conn, driverConn any) *byte {
	v := reflect.ValueOf(driverConn)
	for range maxWrappers {
		if v.Kind() == reflect.Pointer {
			return (*byte)(v.UnsafePointer())
		}
		if v = inside(v); !v.IsValid() {
			break
		}
	}
	return (*byte)(reflect.ValueOf(conn).UnsafePointer())
}

// Closed reports whether the owner has closed conn, and so given its session
// back. It waits while conn is in use; a connection that is in use for Patience
// is not closed.
func Closed(conn *sql.Conn) bool {
	closed := make(chan bool, 1)
	go func() {
		open := false
		rawconn.Raw(conn, func(any) error { open = true; return nil })
		closed <- !open
	}()
	timer := time.NewTimer(Patience)
	defer timer.Stop()
	select {
	case is := <-closed:
		return is
	case <-timer.C:
		return false
	}
}
