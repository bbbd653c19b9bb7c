package main

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// timeHelp is what parseTime takes.
const timeHelp = `TIME is 12:00, "yesterday 12:00", 2026-07-14, "2026-07-14 12:00:30", as in RFC 3339
(2026-07-14T12:00:30Z), or how long ago: 90s, 15m, 2h, 3d. Without a zone it is that
of this host (TZ).`

// clockOf returns the server's time, of which the audit's rows have theirs: this
// host's clock may be ahead, or behind.
func clockOf(ctx context.Context, on *sql.DB) (now time.Time, err error) {
	err = on.QueryRowContext(ctx, "SELECT pg_catalog.clock_timestamp()").Scan(&now)
	return now.Local(), err
}

// parseTime reads a moment that a person has in mind.
func parseTime(s string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t, nil
	}
	if d, err := parseAge(s); err == nil {
		return now.Add(-d), nil
	}
	day, clock := now, s
	if rest, ok := strings.CutPrefix(s, "yesterday"); ok {
		day, clock = now.AddDate(0, 0, -1), strings.TrimSpace(rest)
	} else if rest, ok := strings.CutPrefix(s, "today"); ok {
		clock = strings.TrimSpace(rest)
	}
	if clock == "" && s != "" {
		clock = "00:00"
	}
	for _, layout := range []string{"15:04", "15:04:05"} {
		if t, err := time.Parse(layout, clock); err == nil {
			return time.Date(day.Year(), day.Month(), day.Day(), t.Hour(), t.Minute(), t.Second(), t.Nanosecond(), now.Location()), nil
		}
	}
	for _, layout := range []string{time.DateTime, "2006-01-02 15:04", time.DateOnly, "2006-01-02T15:04:05", "2006-01-02T15:04"} {
		if t, err := time.ParseInLocation(layout, s, now.Location()); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%s is no time: try 12:00, \"2026-07-14 12:00\" or 2h", quote(s))
}

// parseAge reads a duration, also of days: 90d.
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		n, err := strconv.ParseFloat(days, 64)
		if err == nil && n >= 0 && n <= 100_000 {
			return time.Duration(n * 24 * float64(time.Hour)), nil
		}
	} else if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return d, nil
	}
	return 0, fmt.Errorf("%s is no duration: try 90d or 12h", quote(s))
}

// brief shows a duration with two units at most.
func brief(d time.Duration) string {
	switch {
	case d < 0:
		return "-" + brief(-d)
	case d < 9950*time.Microsecond:
		return fmt.Sprintf("%.1fms", float64(d)/1e6)
	case d < 995*time.Millisecond:
		return fmt.Sprintf("%dms", d.Round(time.Millisecond).Milliseconds())
	case d < 9950*time.Millisecond:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 24*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd%02dh", int(d.Hours())/24, int(d.Hours())%24)
}
