package pgtest

import (
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// A ServerLog is what a server logs from some moment on.
type ServerLog struct {
	t     testing.TB
	file  string
	start int64
}

// LogOf returns the log of srv from now on.
func LogOf(t testing.TB, srv *pgserver.Server) ServerLog {
	t.Helper()
	file := filepath.Join(srv.Dir(), "log")
	info, err := os.Stat(file)
	Must(t, err)
	return ServerLog{t, file, info.Size()}
}

// Lines returns the lines that the server has logged since, as they are in its
// file: those of a statement that has several each count.
func (l ServerLog) Lines() []string {
	l.t.Helper()
	f, err := os.Open(l.file)
	Must(l.t, err)
	defer f.Close()
	_, err = f.Seek(l.start, io.SeekStart)
	Must(l.t, err)
	text, err := io.ReadAll(f)
	Must(l.t, err)
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// ownerOfLine finds the process id in the default log_line_prefix, "%m [%p] ".
var ownerOfLine = regexp.MustCompile(`^[^\t\[]*\[(\d+)\] `)

// LinesOf returns those of Lines that are of one backend, with the lines that
// continue them.
func (l ServerLog) LinesOf(pid int) (lines []string) {
	l.t.Helper()
	owner := 0
	for _, line := range l.Lines() {
		if match := ownerOfLine.FindStringSubmatch(line); match != nil {
			owner, _ = strconv.Atoi(match[1])
		}
		if owner == pid {
			lines = append(lines, line)
		}
	}
	return lines
}
