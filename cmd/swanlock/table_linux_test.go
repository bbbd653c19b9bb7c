package main

import (
	"strings"
	"testing"
	"time"
)

func TestTableFits(t *testing.T) {
	make := func() *table {
		tab := &table{columns: []column{{"TARGET", false, 8, 0}, {"OWNER", false, 6, 1}, {"PID", true, 0, 0}, {"NOTHING", false, 0, 0}, {"CLIENT", false, 0, 2}}}
		tab.add("", "/lake/a/very/long/target", "somebody@somewhere", "4711", "", "10.0.0.1")
		tab.add("", "日本語のターゲット", "me", "7", "", "")
		return tab
	}
	want := "TARGET                    OWNER                PID  CLIENT\n" +
		"/lake/a/very/long/target  somebody@somewhere  4711  10.0.0.1\n" +
		"日本語のターゲット        me                     7\n"
	if got := make().text(0, colours{}); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for width := 14; width < 70; width++ {
		text := make().text(width, colours{})
		for line := range strings.Lines(text) {
			if got := textWidth(strings.TrimSuffix(line, "\n")); got > width {
				t.Errorf("width %d: a line takes %d\n%s", width, got, text)
			}
		}
		if !strings.Contains(text, "4711") || strings.Contains(text, "CLIENT") && !strings.Contains(text, "OWNER") {
			t.Errorf("width %d leaves out the wrong columns:\n%s", width, text)
		}
	}
}

func TestCut(t *testing.T) {
	for _, tt := range []struct {
		s     string
		width int
		want  string
	}{
		{"short", 5, "short"},
		{"/lake/a/long/target", 10, "/lake…rget"},
		{"日本語のターゲット", 9, "日本…ット"},
		{"ab", 1, "…"},
	} {
		if got := cut(tt.s, tt.width); textWidth(got) > tt.width || got != tt.want {
			t.Errorf("cut(%q, %d) = %q, of %d; want %q", tt.s, tt.width, got, textWidth(got), tt.want)
		}
	}
}

// What a table shows does nothing to a terminal.
func TestCell(t *testing.T) {
	for in, want := range map[string]string{"a b": "a b", "é☃": "é☃", "\x1b[2J": `\x1b[2J`, "a\nb": `a\nb`, "\u202e": `\u202e`, "\xff": "\ufffd"} {
		if got := cell(in); got != want {
			t.Errorf("cell(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestParseTime(t *testing.T) {
	zone := time.FixedZone("here", 2*60*60)
	now := time.Date(2026, 7, 14, 9, 30, 0, 0, zone)
	for in, want := range map[string]string{
		"12:00":                "2026-07-14T12:00:00+02:00",
		"yesterday 12:00":      "2026-07-13T12:00:00+02:00",
		"yesterday":            "2026-07-13T00:00:00+02:00",
		"today 08:15:30":       "2026-07-14T08:15:30+02:00",
		"2026-03-01":           "2026-03-01T00:00:00+02:00",
		"2026-03-01 10:11":     "2026-03-01T10:11:00+02:00",
		"2026-03-01 10:11:12":  "2026-03-01T10:11:12+02:00",
		"2026-03-01T10:11:12Z": "2026-03-01T10:11:12Z",
		"90m":                  "2026-07-14T08:00:00+02:00",
		"2d":                   "2026-07-12T09:30:00+02:00",
	} {
		if got, err := parseTime(in, now); err != nil || got.Format(time.RFC3339) != want {
			t.Errorf("%q is %v, %v; want %s", in, got.Format(time.RFC3339), err, want)
		}
	}
	for _, in := range []string{"", "noon", "25:00", "-1h", "yesterday noon", "9999999999d"} {
		if got, err := parseTime(in, now); err == nil {
			t.Errorf("%q is %v", in, got)
		}
	}
}

func TestBrief(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0.0ms", 1500 * time.Microsecond: "1.5ms", 120 * time.Millisecond: "120ms", 4300 * time.Millisecond: "4.3s", 59 * time.Second: "59s",
		61 * time.Second: "1m01s", 3*time.Hour + 4*time.Minute: "3h04m", 50 * time.Hour: "2d02h", -time.Minute: "-1m00s",
	} {
		if got := brief(d); got != want {
			t.Errorf("brief(%v) = %s, want %s", d, got, want)
		}
	}
}

func TestFolded(t *testing.T) {
	got := folded("one two three four five six seven", 30, 10, 4)
	if want := "one two three four\n    five six seven\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestBar(t *testing.T) {
	_, tty := openTerminal(t)
	b := newBar(tty)
	if b.width != 80 {
		t.Errorf("a terminal that was told no size has %d columns, want 80", b.width)
	}
	var out strings.Builder
	b.w = &out
	b.show(0, 200)
	b.show(50, 200) // at once: not drawn
	b.show(200, 200)
	b.end()
	if got := out.String(); strings.Count(got, "\r") != 3 || !strings.Contains(got, "100 %  200 of 200 rows") || strings.Contains(got, "50 of") {
		t.Errorf("it draws %q", got)
	}
	out.Reset()
	b = newBar(&out)
	b.show(1, 2)
	b.end()
	if out.Len() > 0 {
		t.Errorf("where there is no terminal it draws %q", out.String())
	}
}
