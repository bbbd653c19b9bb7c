package pgserver

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Standby starts a server that is a streaming standby of s. It restarts s on the way: PostgreSQL's own pg_basebackup is
// not everywhere that its server is. The caller stops the standby.
func (s *Server) Standby(ctx context.Context) (_ *Server, err error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	standby, err := Start(ctx)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("pgserver: standby: %w", err), standby.Stop())
		}
	}()
	for _, srv := range []*Server{s, standby} {
		srv.mu.Lock()
		err := srv.shutDownLocked(ctx, Fast)
		srv.mu.Unlock()
		if err != nil {
			return nil, err
		}
	}
	if err := os.RemoveAll(standby.data()); err != nil {
		return nil, err
	}
	if err := copyCluster(ctx, s.data(), standby.data()); err != nil {
		return nil, err
	}
	err = standby.configure(fmt.Sprintf("primary_conninfo = 'host=127.0.0.1 port=%d user=postgres'\n", s.port))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(standby.data(), "standby.signal"), nil, 0o644); err != nil {
		return nil, err
	}
	return standby, errors.Join(s.Restart(ctx, Fast), standby.Restart(ctx, Fast))
}
