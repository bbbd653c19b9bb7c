package metrics

import (
	"bytes"
	"context"
	"database/sql/driver"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/telemetry"
	"github.com/swanlake-io/swanlock/memlock"
	promlock "github.com/swanlake-io/swanlock/metrics/prometheus"
)

// TestMonitoringPage: docs/monitoring.md names each metric and each alert, and its
// examples of output are what comes out.
func TestMonitoringPage(t *testing.T) {
	page := read(t, "../docs/monitoring.md")
	all := append([]*telemetry.Instrument{telemetry.AuditAge}, telemetry.Instruments...)
	for i := range telemetry.PoolInstruments {
		all = append(all, &telemetry.PoolInstruments[i].Instrument)
	}
	for _, i := range all {
		if row := fmt.Sprintf("| `%s` | `%s` |", i.Name, i.PrometheusName()); !strings.Contains(page, row) {
			t.Errorf("the page has no row %s", row)
		}
	}
	for _, alert := range regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(read(t, "rules.yml"), -1) {
		if !strings.Contains(page, "| `"+alert[1]+"` |") {
			t.Errorf("the page does not have the alert %s", alert[1])
		}
	}
	log, exposition := example(t)
	for what, got := range map[string]string{"log": log, "metrics": exposition} {
		if !strings.Contains(page, "\n"+got) {
			t.Errorf("the page's %s is not what comes out:\n%s", what, got)
		}
	}
	if os.Getenv("SHOW") != "" { // with go test -v, to mend the page
		fmt.Print(log, exposition)
	}
}

// example is the run of the page: a checkpoint of 12 s, during which another host
// tries too, and one whose session ends after 40 s.
func example(t *testing.T) (log, exposition string) {
	reg, out := prometheus.NewRegistry(), &bytes.Buffer{}
	synctest.Test(t, func(t *testing.T) {
		metrics, err := promlock.Metrics(reg)
		if err != nil {
			t.Fatal(err)
		}
		logger := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}}))
		space := memlock.New()
		locker := swanlock.Observe(space, metrics, swanlock.LogTo(logger))
		for _, lost := range []bool{false, true} {
			err := swanlock.Do(t.Context(), locker, "/lake/checkpoint", func(ctx context.Context, _ swanlock.DistributedLock) error {
				if lost {
					time.Sleep(40 * time.Second)
					space.Lose("/lake/checkpoint", fmt.Errorf("the server restarted: %w", driver.ErrBadConn))
					<-ctx.Done()
					return nil
				}
				if _, err := locker.TryAcquire(ctx, "/lake/checkpoint"); err == nil {
					t.Error("got a lock that is held")
				}
				time.Sleep(12 * time.Second)
				return nil
			}, swanlock.WithOwner("blue"), swanlock.WithFence())
			if (err != nil) != lost {
				t.Error(err)
			}
			synctest.Wait()
		}
	})
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	for line := range strings.Lines(text.String()) {
		if regexp.MustCompile(`^swanlock_(lock|acquire_duration_seconds_count|hold_duration_seconds_sum)`).MatchString(line) {
			exposition += line
		}
	}
	return out.String(), exposition
}
