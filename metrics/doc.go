// Package metrics has the dashboard and the alerting rules for the metrics of
// locks, and the tests that metrics/otel and metrics/prometheus expose the very
// same ones. Programs import one of those two.
package metrics
