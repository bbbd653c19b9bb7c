//go:build !unix

package pgserver

import (
	"errors"
	"syscall"
)

type account struct{ uid, gid uint32 }

func (*account) String() string { return "" }

// unprivileged is the first thing that Start asks for, and the last here.
func unprivileged() (*account, error) {
	return nil, errors.New("a throw-away PostgreSQL needs a Unix system: run this under WSL or in a container")
}

func attributes(*account) *syscall.SysProcAttr { return nil }
func exited(int) (bool, error)                 { return true, errors.ErrUnsupported }
func shutdown(int, Mode) error                 { return errors.ErrUnsupported }
func kill(int)                                 {}

// Pause stops the whole server until resume is called.
func (s *Server) Pause() (resume func(), err error) { return func() {}, errors.ErrUnsupported }
