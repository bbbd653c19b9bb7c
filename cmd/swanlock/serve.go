package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/swanlake-io/swanlock/lockweb"
	"github.com/swanlake-io/swanlock/pglock"
)

const (
	serveListen = "127.0.0.1:7926"
	// tokenVar has the token of serve, if no file has it. It is no flag: those
	// can be read in the list of processes.
	tokenVar = "SWANLOCK_WEB_TOKEN"
	// serveConns bounds the connections that the page uses: a look, and what its
	// users ask for beside it.
	serveConns = 4
)

// serveOptions is what the arguments of serve say.
type serveOptions struct {
	listen, tokenFile string
	hosts             []string
}

func parseServe(args []string) (o serveOptions, err error) {
	flags := newFlags("serve")
	flags.StringVar(&o.listen, "listen", serveListen, "")
	flags.StringVar(&o.tokenFile, "token-file", "", "")
	flags.Func("host", "", func(name string) error {
		if name == "" || strings.ContainsAny(name, "/:@ ") {
			return errors.New("it is a name alone, such as locks.example.com")
		}
		o.hosts = append(o.hosts, name)
		return nil
	})
	if _, err := parse(flags, args, 0, 0); err != nil {
		return o, err
	}
	if _, _, err := net.SplitHostPort(o.listen); err != nil {
		return o, failf(exitUsage, "serve: --listen %s is no address and port, such as %s", quote(o.listen), serveListen)
	}
	return o, nil
}

// token returns the token, or "" if there is none.
func (o serveOptions) token() (string, error) {
	token, from := os.Getenv(tokenVar), tokenVar
	if o.tokenFile != "" {
		text, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return "", failf(exitConfig, "serve: --token-file: %w", err)
		}
		token, from = string(text), "the token file"
		if strings.TrimSpace(token) == "" {
			return "", failf(exitConfig, "serve: the token file is empty")
		}
	}
	token = strings.TrimSpace(token)
	if token != "" && len(token) < lockweb.MinToken {
		return "", failf(exitConfig, "serve: %s has fewer than %d characters: make one with openssl rand -hex 16", from, lockweb.MinToken)
	}
	return token, nil
}

func cmdServe(ctx context.Context, s streams, args []string) error {
	o, err := parseServe(args)
	if err != nil {
		return err
	}
	token, err := o.token()
	if err != nil {
		return err
	}
	listener, err := net.Listen("tcp", o.listen)
	if err != nil {
		return failf(exitUnavailable, "serve: %w", err)
	}
	defer listener.Close()
	addr := listener.Addr().(*net.TCPAddr)
	if !addr.IP.IsLoopback() && token == "" {
		return failf(exitUsage, "serve: %s can be reached from elsewhere, so it needs a token (--token-file, or %s)", quote(o.listen), tokenVar)
	}
	return onServer(ctx, "serve", func(ctx context.Context, db *sql.DB) error {
		return serve(ctx, s, db, listener, serveURL(addr, o.hosts), o, token)
	})
}

// serve serves the page, which is at url, until ctx ends.
func serve(ctx context.Context, s streams, db *sql.DB, listener net.Listener, url string, o serveOptions, token string) error {
	db.SetMaxOpenConns(serveConns)
	opts := []lockweb.Option{lockweb.WithTitle(serverTitle())}
	if token != "" {
		opts = append(opts, lockweb.WithToken(token))
	}
	if len(o.hosts) > 0 {
		opts = append(opts, lockweb.WithHosts(o.hosts...))
	}
	server := &http.Server{
		Handler:           lockweb.Handler(db, opts...),
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second, // a stream sets its own
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(warnings{s.err}, "serve: ", 0),
		BaseContext:       func(net.Listener) context.Context { return ctx }, // ends the streams
	}
	if err := print(s.out, url+"\n"); err != nil {
		return &failure{exitFailed, err}
	}
	if isTerminal(s.err) {
		fmt.Fprint(s.err, serveNote(token != ""))
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return failf(exitUnavailable, "serve: %w", err)
	case <-ctx.Done():
	}
	rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	if server.Shutdown(rest) != nil {
		server.Close()
	}
	<-ended
	return nil
}

func serveNote(token bool) string {
	if token {
		return "The page asks for the token. Ctrl-C ends it.\n"
	}
	return "The page is read-only, and for this machine alone. Ctrl-C ends it.\n"
}

// serveURL is where the page is, as seen from this machine.
func serveURL(addr *net.TCPAddr, hosts []string) string {
	host := addr.IP.String()
	switch {
	case addr.IP.IsUnspecified() && len(hosts) > 0:
		host = hosts[0]
	case addr.IP.IsUnspecified():
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, fmt.Sprint(addr.Port)) + "/"
}

// serverTitle names the database and its host, or is empty.
func serverTitle() string {
	dsn, err := pglock.DSNFromEnv()
	if err != nil {
		return ""
	}
	cfg, err := pgx.ParseConfig(dsn)
	if err != nil {
		return ""
	}
	if strings.HasPrefix(cfg.Host, "/") {
		return cfg.Database + " on this machine"
	}
	return cfg.Database + " on " + net.JoinHostPort(cfg.Host, fmt.Sprint(cfg.Port))
}

const serveHelp = `Usage: swanlock serve [flags]

Serves a web page that shows who holds which lock, who waits for it, and, from the
audit, who held it before, live. It prints its address:

  $ swanlock serve
  http://127.0.0.1:7926/

  SWANLOCK_WEB_TOKEN=$(openssl rand -hex 16) swanlock serve     may end sessions too
  swanlock serve --listen 0.0.0.0:7926 --token-file token --host locks.example.com

Without a token the page is read-only, and answers this machine alone. With one,
everybody who has the token sees it, and can end the session of a holder.

Flags:
  --listen ADDR     address and port (default 127.0.0.1:7926; port 0: any that is
                    free). One that others can reach needs a token; it is plain
                    HTTP, so put a proxy with TLS before it
  --token-file FILE the token is in FILE; else in SWANLOCK_WEB_TOKEN. It has 16
                    characters at least
  --host NAME       a host name under which browsers reach the page, besides
                    localhost and IP addresses; may be repeated

Other addresses: /metrics for Prometheus (with a token: Authorization: Bearer),
/healthz (200 if PostgreSQL answers, else 503). docs/web.md has the rest. To end
sessions takes the right to (pg_signal_backend and pg_read_all_stats).

Exit codes: 0 after Ctrl-C or SIGTERM; 64 wrong arguments; 69 the server or the
address cannot be had; 78 no server is configured, or the token is not usable.
`
