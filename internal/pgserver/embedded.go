package pgserver

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"

	embeddedpostgres "github.com/fergusstrange/embedded-postgres"
)

// fetchBinaries has the embedded-postgres library fetch PostgreSQL, which it keeps in the user's home, and unpack it
// in the server's folder. Nothing else of it is used: it can run no server as root, and a server that it ran would
// outlive a process that is killed.
//
// The library has no call that only fetches. But fetching is what it does first, and an encoding that does not
// exist makes initdb, which is next, fail before it makes anything.
func fetchBinaries(config embeddedpostgres.Config, dir string, acc *account) (string, error) {
	port, err := freePort()
	if err != nil {
		return "", err
	}
	logs := filepath.Join(os.TempDir(), "embedded_postgres_log*") // which the library leaves behind
	before, _ := filepath.Glob(logs)
	defer func() {
		after, _ := filepath.Glob(logs)
		for _, log := range after {
			if !slices.Contains(before, log) {
				os.Remove(log)
			}
		}
	}()
	pg := filepath.Join(dir, "pg")
	fetchErr := embeddedpostgres.NewDatabase(config.
		BinariesPath(pg).
		RuntimePath(filepath.Join(dir, "fetch")).
		Port(uint32(port)).
		Encoding("none: only fetch").
		Logger(io.Discard)).Start()
	bin := filepath.Join(pg, "bin")
	if err := checkBinaries(bin); err != nil {
		return "", fmt.Errorf("there is no PostgreSQL on this machine, and none can be fetched (%w): install PostgreSQL 14 "+
			"or later, Debian's package is postgresql, or set %s to the folder of its binaries", cmp.Or(fetchErr, err), BinEnv)
	}
	if acc == nil {
		return bin, nil
	}
	// What root unpacked is for the server's user to read and to remove.
	return bin, filepath.WalkDir(dir, func(path string, _ os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(path, int(acc.uid), int(acc.gid))
	})
}
