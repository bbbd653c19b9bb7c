package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

func cmdDev(ctx context.Context, s streams, args []string) (err error) {
	argv, err := parse(newFlags("dev"), args, 0, -1)
	if err != nil {
		return err
	}
	if len(argv) > 0 && args[0] != "--" {
		return failf(exitUsage, "dev: %s: put -- before a command (see swanlock dev --help)", quote(argv[0]))
	}
	var path string
	if len(argv) > 0 {
		if path, err = lookPath("dev", argv[0]); err != nil {
			return err
		}
	}
	signals, release := catch(passedOn...)
	defer release()
	sctx, stop := endOnSignal(ctx, signals, anySignal)
	server, err := startServer(sctx)
	stop()
	if err == nil {
		defer func() {
			if serr := server.Stop(); serr != nil {
				err = errors.Join(err, serr)
			}
		}()
	}
	if ended := interrupted(sctx, "dev"); ended != nil {
		return ended
	}
	if err != nil {
		return failf(exitUnavailable, "dev: %w", err)
	}

	if path != "" {
		c, err := startChild("dev", path, argv, append(os.Environ(), dsnVar+"="+server.URL()), s)
		if err != nil {
			return err
		}
		for {
			select {
			case <-c.ended():
				code, _ := c.result()
				return &failure{code: code}
			case sig := <-signals:
				c.signal(sig.(syscall.Signal))
			}
		}
	}

	if err := print(s.out, "export "+dsnVar+"="+shellQuote(server.URL())+"\n"); err != nil {
		return err
	}
	fmt.Fprint(s.err, "PostgreSQL is running. Paste the line above in another terminal, and try there:\n"+
		"  swanlock run --audit nightly -- sleep 20\n"+
		"Ctrl-C here removes the server and its data.\n")
	select {
	case <-signals:
	case <-ctx.Done():
	}
	return nil
}

// startServer starts a throw-away PostgreSQL with the audit table.
func startServer(ctx context.Context) (_ *pgserver.Server, err error) {
	server, err := pgserver.Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, server.Stop())
		}
	}()
	db, err := openDSN(ctx, server.URL())
	if err != nil {
		return nil, err
	}
	defer db.Close()
	p, err := migrator(db)
	if err != nil {
		return nil, err
	}
	if _, err := p.Up(ctx); err != nil {
		return nil, err
	}
	return server, nil
}

// shellQuote quotes s for a shell.
func shellQuote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
