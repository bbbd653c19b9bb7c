package verify

import (
	"context"
	"database/sql"
	"io/fs"
	"strings"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/filelock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/internal/testserver"
	"github.com/swanlake-io/swanlock/internal/verify"
	"github.com/swanlake-io/swanlock/leaselock"
	"github.com/swanlake-io/swanlock/leaselock/migrations"
)

func startFiles(t *testing.T, b *verify.Backend) {
	b.Open, b.Shared = t.TempDir(), true
	finally(t, b, openFiles, b.Open)
}

func openFiles(_ context.Context, dir string) (swanlock.Locker, func(), error) {
	return filelock.New(filelock.WithDir(dir)), func() {}, nil
}

func startLeases(t *testing.T, b *verify.Backend) {
	server, err := pgserver.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Stop() })
	db, err := sql.Open("pgx", server.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	text, err := fs.ReadFile(migrations.FS, "00001_lock_leases.sql")
	if err != nil {
		t.Fatal(err)
	}
	up, _, _ := strings.Cut(string(text), "-- +goose Down")
	if _, err := db.Exec(up); err != nil {
		t.Fatal(err)
	}
	p := testserver.NewProxy(t, server.Addr())
	b.Open = strings.Replace(server.URL(), server.Addr(), p.Addr, 1)
	b.Unordered, b.MostFree = "waiters ask", 15*time.Second
	b.Faults = networkFaults(func() *testserver.Proxy { return p })
	b.Faults["server-restart"] = func(ctx context.Context) {
		if err := server.Restart(context.WithoutCancel(ctx), pgserver.Immediate); err != nil {
			t.Error(err)
		}
	}
	b.Faults["server-stop"] = func(ctx context.Context) {
		resume, err := server.Pause()
		if err != nil {
			t.Error(err)
		}
		defer resume()
		sleep(ctx, 3*time.Second)
	}
	finally(t, b, openLeases, server.URL())
}

func openLeases(_ context.Context, url string) (swanlock.Locker, func(), error) {
	db, err := sql.Open("pgx", url)
	if err != nil {
		return nil, nil, err
	}
	l, err := leaselock.New(db)
	return l, func() { db.Close() }, err
}
