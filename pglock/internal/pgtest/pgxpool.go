package pgtest

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/jackc/pgx/v5/stdlib"
)

// pgxpoolMaxConns is how many connections a pgxpool may have here unless its URL
// says otherwise. The library's own default, 4, is too few for tests that are not
// about the limit.
const pgxpoolMaxConns = 50

var errNotGivenBack = errors.New("connections were not given back to the pgxpool")

// openPgxpool opens a *sql.DB on a pgxpool, as most programs that use pgx have
// one: its Close gives a connection back to the pgxpool alive, and each checkout
// makes a new driver connection. The URL may say pool_max_conns=4.
//
// The function that it returns closes both. It gives up after Soon on a pgxpool that does
// not get its connections back.
func openPgxpool(url string) (*sql.DB, func() error, error) {
	pool, err := newPgxpool(url)
	if err != nil {
		return nil, nil, err
	}
	db := stdlib.OpenDBFromPool(pool)
	return db, func() error {
		err := db.Close()
		closed := make(chan struct{})
		go func() {
			pool.Close()
			close(closed)
		}()
		select {
		case <-closed:
			return err
		case <-time.After(Soon):
			return fmt.Errorf("%w: %d", errNotGivenBack, pool.Stat().AcquiredConns())
		}
	}, nil
}

func newPgxpool(url string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	if !strings.Contains(url, "pool_max_conns=") {
		config.MaxConns = pgxpoolMaxConns
	}
	return pgxpool.NewWithConfig(context.Background(), config)
}

// A pgxpoolDriver makes connections each of a pgxpool of its own. It is for those
// drivers here that wrap another; Open does without it.
type pgxpoolDriver struct{}

func (pgxpoolDriver) Open(url string) (driver.Conn, error) {
	pool, err := newPgxpool(url)
	if err != nil {
		return nil, err
	}
	conn, err := stdlib.GetPoolConnector(pool).Connect(context.Background())
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &pgxpoolConn{conn.(*stdlib.Conn), pool}, nil
}

type pgxpoolConn struct {
	*stdlib.Conn
	pool *pgxpool.Pool
}

func (c *pgxpoolConn) Close() error {
	err := c.Conn.Close()
	go c.pool.Close()
	return err
}
