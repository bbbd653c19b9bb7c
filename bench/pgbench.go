package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"time"
)

// A transaction of pgbench's is a lock and an unlock, each a round trip.
const pgbenchScript = "SELECT pg_try_advisory_lock(:client_id);\nSELECT pg_advisory_unlock(:client_id);\n"

// pgbenchPairs are done in a turn. That takes a fifth of a second or so.
const pgbenchPairs = 4000

var tps = regexp.MustCompile(`(?m)^tps = ([0-9.]+)`)

// pgbench is PostgreSQL's own client, in C: what the server and the network can
// do for so many connections with one round trip for each call. Its figure is
// without the time to connect. It is nothing where the program, which lies next
// to the server's, is not installed.
func (h *harness) pgbench(conns int) []contender {
	db := h.open("pgx", "")
	defer db.Close()
	var bin string
	check(db.QueryRowContext(h.ctx, "SELECT setting FROM pg_config WHERE name = 'BINDIR'").Scan(&bin))
	program := filepath.Join(bin, "pgbench")
	if _, err := os.Stat(program); err != nil {
		fmt.Fprintf(h.out, "pgbench: left out: it is not in %s\n", bin)
		return nil
	}
	turn := func(time.Duration) float64 { // its --time knows whole seconds
		cmd := exec.CommandContext(h.ctx, program, "--no-vacuum", "--protocol=prepared", "--file=/dev/stdin",
			"--client="+strconv.Itoa(conns), "--jobs="+strconv.Itoa(min(conns, runtime.NumCPU())),
			"--transactions="+strconv.Itoa(pgbenchPairs/conns), h.postgres.URL())
		cmd.Stdin = bytes.NewBufferString(pgbenchScript)
		out, err := cmd.CombinedOutput()
		if err != nil {
			check(fmt.Errorf("pgbench: %w: %s", err, out))
		}
		match := tps.FindSubmatch(out)
		if match == nil {
			check(fmt.Errorf("pgbench: no tps in: %s", out))
		}
		return must(strconv.ParseFloat(string(match[1]), 64))
	}
	return []contender{{"pgbench", turn}}
}
