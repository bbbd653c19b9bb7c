package pgserver

import (
	"context"
	"fmt"
	"os"
	"sync"
)

// shared is the server that Default gives out.
var shared struct {
	sync.Mutex
	opts   []Option
	server *Server
	err    error
}

// Default returns the one server that everything in this process shares, and starts it on the first call: a run that
// needs no server, such as that of a fuzz worker, starts none. It panics if the server does not start.
func Default() *Server {
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start(context.Background(), shared.opts...)
	}
	if shared.err != nil {
		panic(shared.err)
	}
	return shared.server
}

// Main is all that a package's TestMain needs for its tests to use Default. The options are for Default's server.
func Main(m interface{ Run() int }, opts ...Option) {
	os.Exit(Around(m, opts...).Run())
}

// Around is Main for what runs the tests itself: goleak.VerifyTestMain(pgserver.Around(m)). Its result runs m, then
// stops Default's server.
func Around(m interface{ Run() int }, opts ...Option) interface{ Run() int } {
	return around{m, opts}
}

type around struct {
	tests interface{ Run() int }
	opts  []Option
}

func (a around) Run() int {
	shared.Lock()
	shared.opts = a.opts
	shared.Unlock()

	code := a.tests.Run()

	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil {
		return code
	}
	if err := shared.server.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	shared.server = nil
	return code
}
