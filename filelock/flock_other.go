//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package filelock

import (
	"errors"
	"fmt"
	"os"
	"runtime"
)

// supported says that there is no flock, without which a lock would not be safe.
var supported = fmt.Errorf("%w on %s: it has no flock", errors.ErrUnsupported, runtime.GOOS)

func tryFlock(*os.File, bool) (bool, error) { return false, supported }

func dup(*os.File) (*os.File, error) { return nil, supported }
