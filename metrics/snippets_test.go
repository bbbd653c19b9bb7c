package metrics

import (
	"testing"

	"github.com/swanlake-io/swanlock/internal/snippets"
)

// TestMonitoringCompiles: the Go of docs/monitoring.md is Go, with the names that
// there are.
func TestMonitoringCompiles(t *testing.T) {
	const module = `"github.com/swanlake-io/swanlock`
	snippets.Check(t, snippets.Page{File: "../docs/monitoring.md",
		Imports: "\"log/slog\"\n" + module + "\"\n" + module + "/metrics/otel\"\n" + module + "/metrics/prometheus\"\n" + module + "/pglock\"\n",
		Given:   "pool *pglock.Pool",
		Pieces:  2})
}
