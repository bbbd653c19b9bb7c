package oneconn

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"strconv"
)

// rows are the rows that a statement has returned.
type rows struct {
	values []driver.Value // of all rows, one after the other
	width  int            // how many columns a row has
	next   int            // where the next row begins in values
}

func (r *rows) Next() bool {
	if r.next >= len(r.values) {
		return false
	}
	r.next += r.width
	return true
}

func (r *rows) Err() error   { return nil }
func (r *rows) Close() error { return nil }

func (r *rows) Scan(dest ...any) error {
	if len(dest) != r.width {
		return fmt.Errorf("%d columns for %d variables", r.width, len(dest))
	}
	row := r.values[r.next-r.width:]
	for i, d := range dest {
		if err := scan(d, row[i]); err != nil {
			return fmt.Errorf("column %d: %w", i+1, err)
		}
	}
	return nil
}

// scan stores value in the variable that dest points to. It knows the types of
// package db, and the types that drivers return for them.
func scan(dest any, value driver.Value) (err error) {
	switch d := dest.(type) {
	case *int64:
		*d, err = integer(value, 64)
	case *int32:
		var n int64
		n, err = integer(value, 32)
		*d = int32(n)
	case *bool:
		switch v := value.(type) {
		case bool:
			*d = v
		case string:
			*d, err = strconv.ParseBool(v)
		default:
			err = fmt.Errorf("a %T is no boolean", value)
		}
	case *string:
		v, ok := value.(string)
		if !ok {
			err = fmt.Errorf("a %T is no text", value)
		}
		*d = v
	case sql.Scanner:
		err = d.Scan(value)
	default:
		err = fmt.Errorf("no variable of type %T", dest)
	}
	return err
}

func integer(value driver.Value, bits int) (int64, error) {
	switch v := value.(type) {
	case int64:
		if int64(int32(v)) != v && bits == 32 {
			return 0, fmt.Errorf("%d has more than 32 bits", v)
		}
		return v, nil
	case string:
		return strconv.ParseInt(v, 10, bits)
	}
	return 0, fmt.Errorf("a %T is no integer", value)
}
