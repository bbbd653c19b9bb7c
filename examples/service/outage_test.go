package main

import (
	"bytes"
	"context"
	"database/sql"
	"log"
	"net/url"
	"os"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

// TestServiceIsRefused: a service that its server refuses does not ask again, and
// write to the log, as fast as it can.
func TestServiceIsRefused(t *testing.T) {
	to, err := url.Parse(pgserver.Default().URL())
	if err != nil {
		t.Fatal(err)
	}
	to.Path = "/nothing"
	db, err := sql.Open("pgx", to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var said bytes.Buffer
	log.SetOutput(&said)
	defer log.SetOutput(os.Stderr)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	nothing := func(context.Context) error { return nil }
	if err := serve(ctx, db, work{lead: nothing, report: nothing, call: nothing, night: time.Hour, clocks: time.Second}); err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(said.Bytes(), []byte("\n")); n == 0 || n > 30 {
		t.Errorf("got %d lines in 3 s, want some:\n%.500s", n, said.Bytes())
	}
}
