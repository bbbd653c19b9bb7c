package dsn

import (
	"os"
	"path/filepath"
	"strings"
)

// findService looks for a service in the file that both drivers look in, and
// returns what is wrong. Neither looks in the system's file, as libpq does.
func findService(name string, getenv func(string) string) (problem string) {
	// A connection string does not belong here. If there is one, its password
	// must not get into a log.
	shown := "a service of that name"
	if !strings.ContainsAny(name, "=:@/") {
		shown = "the service [" + name + "]"
	}
	file := getenv("PGSERVICEFILE")
	if file == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return shown + " cannot be looked up: set PGSERVICEFILE, as there is no home directory"
		}
		file = filepath.Join(home, ".pg_service.conf")
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return shown + " cannot be looked up: " + err.Error() + " (PGSERVICEFILE names another file)"
	}
	for line := range strings.Lines(string(text)) {
		if strings.TrimSpace(line) == "["+name+"]" {
			return ""
		}
	}
	return shown + " is not in " + file + " (PGSERVICEFILE names another file)"
}
