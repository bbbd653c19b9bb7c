package pgserver

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// TemplateEnv names the environment variable that says where the clusters are kept that initdb makes, for other servers
// to start with a copy: a folder, which is the caller's to remove. Without it, each server's cluster is made anew, which
// costs ten times as much.
const TemplateEnv = "SWANLOCK_PG_TEMPLATE"

// makeCluster makes the cluster, by initdb or as a copy of what initdb has made. The clusters of a template have the same
// system identifier.
func (s *Server) makeCluster(ctx context.Context) error {
	folder := os.Getenv(TemplateEnv)
	template := filepath.Join(folder, strings.ReplaceAll(s.bin, string(filepath.Separator), "_"))
	if folder != "" {
		if _, err := os.Stat(template); err == nil {
			return copyCluster(ctx, template, s.data())
		}
	}
	_, err := s.run(ctx, "initdb", "-D", s.data(), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
	if err != nil || folder == "" {
		return err
	}
	made := template + "." + rand.Text()
	if err := copyCluster(ctx, s.data(), made); err != nil {
		return errors.Join(err, os.RemoveAll(made))
	}
	if err := os.Rename(made, template); err != nil { // another process was faster
		return os.RemoveAll(made)
	}
	return nil
}

// copyCluster copies the cluster of a server that is down, its owner and modes too.
func copyCluster(ctx context.Context, from, to string) error {
	if out, err := exec.CommandContext(ctx, "cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return nil
}
