//go:build unix

package testserver

import (
	"flag"
	"fmt"
	"slices"
	"testing"
)

// Example returns a testing.TB for an example, which has none. Call done at its end.
func Example() (t testing.TB, done func()) {
	e := &example{}
	return e, func() {
		for _, f := range slices.Backward(e.cleanups) {
			f()
		}
	}
}

type example struct {
	testing.TB // nil: the methods below are those that this package calls
	cleanups   []func()
}

func (e *example) Helper()           {}
func (e *example) Cleanup(f func())  { e.cleanups = append(e.cleanups, f) }
func (e *example) Fatal(args ...any) { panic(fmt.Sprint(args...)) }

func (e *example) Fatalf(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }

// SkipExamples is for TestMain, where a server is missing.
func SkipExamples() {
	flag.Parse()
	_ = flag.Set("test.skip", "^Example")
}
