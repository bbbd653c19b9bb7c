package metrics

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/internal/telemetry"
)

// promtool runs Prometheus's promtool, which is part of its Debian package.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("NOT TESTED: promtool is missing: apt-get install prometheus")
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// TestRules: the rules are well formed, and fire when they should, and not otherwise.
func TestRules(t *testing.T) {
	promtool(t, "check", "rules", "--lint=all", "--lint-fatal", "rules.yml")
	promtool(t, "test", "rules", "rules_test.yml")
	rules, tests := read(t, "rules.yml"), read(t, "rules_test.yml")
	alerts := regexp.MustCompile(`- alert: (\w+)`).FindAllStringSubmatch(rules, -1)
	if len(alerts) != 8 {
		t.Errorf("got %d alerts, want 8", len(alerts))
	}
	for _, alert := range alerts {
		if !strings.Contains(tests, alert[1]) {
			t.Errorf("no test of %s", alert[1])
		}
	}
	if expressions := regexp.MustCompile(`(?s)expr: (.*?)\n +(?:for|labels):`).FindAllStringSubmatch(rules, -1); len(expressions) != len(alerts) {
		t.Errorf("got %d expressions, want one for each of %d alerts", len(expressions), len(alerts))
	} else {
		for _, e := range expressions {
			checkNames(t, e[1])
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// exposed are the names of all series, and of all labels that ours have.
func exposed() (names map[string]bool, labels []string) {
	names = map[string]bool{}
	all := slices.Clone(telemetry.Instruments)
	all = append(all, telemetry.AuditAge)
	for i := range telemetry.PoolInstruments {
		all = append(all, &telemetry.PoolInstruments[i].Instrument)
	}
	for _, i := range all {
		name := i.PrometheusName()
		if i.Kind != telemetry.Histogram {
			names[name] = false
		} else {
			names[name+"_bucket"], names[name+"_count"] = false, false
		}
		for _, key := range i.Keys {
			labels = append(labels, telemetry.Label(key))
		}
	}
	return names, append(labels, "job", "instance", "le", "severity", "of")
}

var (
	metricName = regexp.MustCompile(`\bswanlock_\w+\b`)
	labelUse   = regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"`)
	grouping   = regexp.MustCompile(`by \(([^)]*)\)`)
)

// checkNames checks that an expression, or a text with names in {{}}, uses what is
// exposed. It returns the metrics in it.
func checkNames(t *testing.T, expression string) (used []string) {
	t.Helper()
	names, labels := exposed()
	for _, name := range metricName.FindAllString(expression, -1) {
		if _, ok := names[name]; ok {
			used = append(used, name)
		} else if !slices.Contains(labels, name) {
			t.Errorf("%s is not exposed, in: %s", name, expression)
		}
	}
	var uses []string
	for _, label := range labelUse.FindAllStringSubmatch(expression, -1) {
		uses = append(uses, label[1])
	}
	for _, by := range grouping.FindAllStringSubmatch(expression, -1) {
		uses = append(uses, strings.Split(strings.ReplaceAll(by[1], " ", ""), ",")...)
	}
	for _, label := range uses {
		if !slices.Contains(labels, label) {
			t.Errorf("the label %s is not exposed, in: %s", label, expression)
		}
	}
	return used
}

type panel struct {
	ID          int
	Type, Title string
	Description string
	GridPos     struct{ H, W, X, Y int }
	Targets     []struct{ RefID, Expr, LegendFormat string }
}

// TestDashboard: it shows each metric that is exposed, and nothing else; its
// expressions are PromQL; panels do not overlap.
func TestDashboard(t *testing.T) {
	var d struct {
		UID, Title  string
		Panels      []panel
		Annotations struct{ List []struct{ Expr string } }
	}
	if err := json.Unmarshal([]byte(read(t, "dashboard.json")), &d); err != nil {
		t.Fatal(err)
	}
	names, _ := exposed()
	expressions := []string{d.Annotations.List[0].Expr}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || p.Title == "" {
			t.Errorf("the panel %d %q has no id of its own, or no title", p.ID, p.Title)
		}
		ids[p.ID] = true
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("%s is beyond the edge", p.Title)
		}
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if other := taken[at]; other != "" {
					t.Fatalf("%s is where %s is", p.Title, other)
				}
				taken[at] = p.Title
			}
		}
		if (len(p.Targets) == 0) != (p.Type == "row") {
			t.Errorf("%s has %d targets", p.Title, len(p.Targets))
		}
		for _, target := range p.Targets {
			expressions = append(expressions, target.Expr)
			checkNames(t, target.LegendFormat)
			if !strings.Contains(target.Expr, `{job=~"$job"`) {
				t.Errorf("%s does not choose the job: %s", p.Title, target.Expr)
			}
		}
	}
	rules := "groups:\n- name: dashboard\n  rules:\n"
	for i, e := range expressions {
		for _, name := range checkNames(t, e) {
			names[name] = true
		}
		e = strings.NewReplacer("$__rate_interval", "5m", "$job", ".*").Replace(e)
		rules += fmt.Sprintf("  - {record: 'dashboard:%d', expr: '%s'}\n", i, e)
	}
	for name, shown := range names {
		if !shown {
			t.Errorf("%s is not on the dashboard", name)
		}
	}
	file := filepath.Join(t.TempDir(), "expressions.yml")
	if err := os.WriteFile(file, []byte(rules), 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, "check", "rules", file)
}
