package main

import (
	"context"
	"database/sql"
	"time"
)

// idleTimeout is how long the server lets conn be idle, of its role or database
// perhaps; 0 is for ever.
func idleTimeout(ctx context.Context, conn *sql.Conn) time.Duration {
	var ms int64
	err := conn.QueryRowContext(ctx, `SELECT setting::bigint FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'idle_session_timeout'`).Scan(&ms)
	if err != nil { // before PostgreSQL 14 there is none
		return 0
	}
	return time.Duration(ms) * time.Millisecond
}
