package pgserver

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// BinEnv names the environment variable that says which PostgreSQL to use: a folder with initdb and postgres in it.
const BinEnv = "SWANLOCK_PG_BIN"

// usualFolders is where PostgreSQL's binaries lie on Debian, Red Hat, macOS and when built from source. Debian and
// Red Hat put most of them on no PATH.
var usualFolders = []string{
	"/usr/lib/postgresql/*/bin",
	"/usr/pgsql-*/bin",
	"/usr/local/pgsql/bin",
	"/opt/homebrew/opt/postgresql*/bin",
	"/usr/local/opt/postgresql*/bin",
	"/Applications/Postgres.app/Contents/Versions/*/bin",
}

// findBinaries returns the folder with PostgreSQL's binaries: the one that is asked for or that the variable names, else
// the one that pg_config tells, the one on the PATH, or the newest of the usual ones. It returns "" if there is none.
func findBinaries(ctx context.Context, asked string) (string, error) {
	if asked != "" {
		if err := checkBinaries(asked); err != nil {
			return "", fmt.Errorf("WithBinaries(%q): %w", asked, err)
		}
		return filepath.Abs(asked)
	}
	if dir := os.Getenv(BinEnv); dir != "" {
		if err := checkBinaries(dir); err != nil {
			return "", fmt.Errorf("%s=%s: %w: set it to a folder with initdb and postgres, or unset it", BinEnv, dir, err)
		}
		return filepath.Abs(dir)
	}
	var dirs []string
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		dirs = append(dirs, strings.TrimSpace(string(out)))
	}
	if postgres, err := exec.LookPath("postgres"); err == nil {
		dirs = append(dirs, filepath.Dir(postgres))
	}
	var usual []string
	for _, pattern := range usualFolders {
		found, _ := filepath.Glob(pattern)
		usual = append(usual, found...)
	}
	slices.SortStableFunc(usual, func(a, b string) int { return cmp.Compare(majorOf(b), majorOf(a)) })
	for _, dir := range append(dirs, usual...) {
		if checkBinaries(dir) == nil {
			return filepath.Abs(dir)
		}
	}
	return "", ctx.Err()
}

// checkBinaries tells what a folder lacks.
func checkBinaries(dir string) error {
	for _, name := range []string{"initdb", "postgres"} {
		path := filepath.Join(dir, name)
		info, err := os.Stat(path)
		if err != nil {
			return err
		}
		if !info.Mode().IsRegular() || info.Mode()&0o111 == 0 {
			return fmt.Errorf("%s is no program", path)
		}
	}
	return nil
}

var number = regexp.MustCompile(`[0-9]+`)

// majorOf returns the version that the folder above bin is named after, 0 if it is not.
func majorOf(dir string) int {
	major, _ := strconv.Atoi(number.FindString(filepath.Base(filepath.Dir(dir))))
	return major
}
