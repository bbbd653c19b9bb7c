package oneconn

import (
	"database/sql"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"weak"

	"github.com/swanlake-io/swanlock/internal/rawconn"
)

// A Map has a value for each driver's connection that it was asked for, until
// that connection is garbage. A value must not keep its connection alive.
type Map[V any] struct {
	// Gone is called with the value of a connection that was collected. The
	// session behind it may live on with another connection of the driver's,
	// since a pgxpool makes a new one for each checkout.
	Gone func(V)

	values sync.Map // of weak.Pointer[byte]
}

// Of returns the value of the driver's connection behind conn. If it has none,
// fresh makes one. A *sql.Conn that the *sql.DB hands out later with the same
// driver's connection has the same value.
func (m *Map[V]) Of(conn *sql.Conn, fresh func() V) (value V, err error) {
	if conn == nil {
		return value, errors.New("the connection is nil")
	}
	err = rawconn.Raw(conn, func(driverConn any) error {
		p := identity(conn, driverConn)
		id := weak.Make(p)
		found, ok := m.values.Load(id)
		if !ok {
			if found, ok = m.values.LoadOrStore(id, fresh()); !ok {
				runtime.AddCleanup(p, m.forget, id)
			}
		}
		value = found.(V)
		return nil
	})
	if err != nil {
		return value, fmt.Errorf("the connection is not usable: %w", err)
	}
	return value, nil
}

func (m *Map[V]) forget(id weak.Pointer[byte]) {
	if value, ok := m.values.LoadAndDelete(id); ok && m.Gone != nil {
		m.Gone(value.(V))
	}
}

// Has reports whether m has a value for the connection with that identity.
func (m *Map[V]) Has(id weak.Pointer[byte]) bool {
	_, ok := m.values.Load(id)
	return ok
}
